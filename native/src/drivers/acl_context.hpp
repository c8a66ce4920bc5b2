// The default context of a device, the one that torch_npu uses too, and making it current.
//
// Streams belong to a context, and a thread that never chose one has none. Such a thread gets ours and keeps it: the
// next call finds it there. A thread that works in another context (of another device, or of its own making) gets that
// one back when the call is over: nobody's thread is moved.
#pragma once

#include "acl_api.hpp"

namespace dormouse::acl {

class DefaultContext {
   public:
    // `api` must outlive it. The calling thread keeps the context that it has. Throws driver_error, or out_of_memory
    // where the device has no room for a context.
    DefaultContext(const Api& api, std::int32_t device);
    // Nothing is given back: aclrtResetDevice would take the device from whoever else uses it in this process.

    // Current on this thread while it lives.
    class Scope {
       public:
        explicit Scope(const DefaultContext& context);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

       private:
        const Api& api_;
        Context before_ = nullptr;
    };

   private:
    const Api& api_;
    Context context_ = nullptr;
};

}  // namespace dormouse::acl
