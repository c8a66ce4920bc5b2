// The primary context of a device, the one that torch and every library of an engine use, and making it current.
//
// A thread that has no context gets ours and keeps it: the next call finds it there. A thread that works in another
// context (of another device, or of its own making) gets that one back when the call is over: nobody's thread is
// moved. Asking the library which one is current costs less than any bookkeeping of ours that would have to be right.
#pragma once

#include "cuda_api.hpp"

namespace dormouse::cuda {

class PrimaryContext {
   public:
    // `api` must outlive it. Throws driver_error, or out_of_memory where the device has no room for a context.
    PrimaryContext(const Api& api, Device device);
    ~PrimaryContext();
    PrimaryContext(const PrimaryContext&) = delete;
    PrimaryContext& operator=(const PrimaryContext&) = delete;

    // Current on this thread while it lives.
    class Scope {
       public:
        explicit Scope(const PrimaryContext& context);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

       private:
        const Api& api_;
        Context before_ = nullptr;
    };

   private:
    const Api& api_;
    Device device_;
    Context context_ = nullptr;
};

}  // namespace dormouse::cuda
