// Things that are costly to make (streams, pinned buffers): made when first wanted, then lent again and again.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace dormouse {

template <class T>
class Shelf {
   public:
    struct Return {
        Shelf* shelf;
        void operator()(T* thing) const noexcept { shelf->put_back(thing); }
    };
    // Goes back to the shelf by itself; must not outlive it.
    using Borrowed = std::unique_ptr<T, Return>;

    explicit Shelf(std::function<std::unique_ptr<T>()> make) : make_(std::move(make)) {}

    Borrowed take() {
        {
            const std::lock_guard lock(mutex_);
            if (!idle_.empty()) {
                Borrowed thing(idle_.back().release(), Return{this});
                idle_.pop_back();
                return thing;
            }
        }
        std::unique_ptr<T> thing = make_();
        const std::lock_guard lock(mutex_);
        idle_.reserve(++made_);  // so that put_back() never allocates
        return Borrowed(thing.release(), Return{this});
    }

   private:
    void put_back(T* thing) noexcept {
        const std::lock_guard lock(mutex_);
        idle_.emplace_back(thing);
    }

    std::function<std::unique_ptr<T>()> make_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> idle_;
    std::size_t made_ = 0;
};

}  // namespace dormouse
