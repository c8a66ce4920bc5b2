// Which driver a name stands for.
#include <string>

#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"

namespace dormouse {

std::unique_ptr<Driver> make_driver(std::string_view kind, const DriverOptions& options) {
    if (kind == "cuda") {
        return make_cuda_driver(options);
    }
    if (kind == "acl") {
        return make_acl_driver(options);
    }
    if (kind == "host") {
        return make_host_driver(options);
    }
    if (kind == "sim") {
        return make_sim_driver(options);
    }
    throw invalid_argument("unknown driver '" + std::string(kind) + "': it is one of cuda, acl, host, sim");
}

}  // namespace dormouse
