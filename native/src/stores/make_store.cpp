#include "dormouse/backup.hpp"
#include "dormouse/limits.hpp"
#include "stores/arena_store.hpp"

namespace dormouse {

std::unique_ptr<BackupStore> make_store(Driver& driver, const StoreOptions& options) {
    return std::make_unique<ArenaStore>(driver, options, lockable_memory);
}

}  // namespace dormouse
