// The states of a tag and what each request makes of them, as one table.
//
//              offload        discard        wake
//   resident   offloaded      discarded      (nothing)
//   offloaded  (nothing)      discarded      resident
//   discarded  illegal_state  (nothing)      resident
//
// While a transition runs its tags are in_transition; nothing else may be asked of them then.
#pragma once

#include <cstddef>
#include <string>

namespace dormouse {

enum class TagState { resident, offloaded, discarded, in_transition };
const char* to_string(TagState state) noexcept;

// The state that a tag named `tag` reaches from `from` when `wanted` is asked for (it may be `from`). Throws
// illegal_state where the table has no answer.
TagState next_state(const std::string& tag, TagState from, TagState wanted);

// What a sleep of `level` 1 or 2 asks of a tag. Level 1 keeps all but the KV cache and scratch memory; level 2 keeps
// only what an engine can't make again by loading: its runtime tensors and captured graphs. Throws invalid_argument.
TagState wanted_at_level(const std::string& tag, int level);

// Segments of a discarded tag up to this size keep their content: small runtime tensors that an engine allocates under
// kv_cache (up to `limit` bytes), and its smallest blocks under weights, where its small buffers are. Larger ones (a
// rope cache of 10 MiB) are the engine's to save, or belong under runtime.
std::size_t kept_up_to(const std::string& tag, std::size_t limit) noexcept;

}  // namespace dormouse
