// The classes are plain Python (dormouse_native/errors.py), so that a reader, a type checker and pickle know them; here
// they are only raised, with the figures that the C++ error carries as their arguments.
#include "errors.hpp"

#include <nanobind/nanobind.h>

#include "dormouse/error.hpp"

namespace nb = nanobind;

namespace dormouse::python {
namespace {

template <typename... Arguments>
void raise(const char* name, const error& cause, Arguments... arguments) {
    // Anything that goes wrong in here is a Python error already, and a clear one.
    try {
        const nb::object type = nb::module_::import_("dormouse_native.errors").attr(name);
        const nb::object exception = type(cause.what(), arguments...);
        PyErr_SetObject(type.ptr(), exception.ptr());
    } catch (nb::python_error& failed) {
        failed.restore();
    }
}

void translate(const std::exception_ptr& caught, void*) {
    try {
        std::rethrow_exception(caught);
    } catch (const out_of_memory& cause) {
        raise("OutOfMemory", cause, cause.needed, cause.available);
    } catch (const host_out_of_memory& cause) {
        raise("HostOutOfMemory", cause, cause.needed, cause.available);
    } catch (const driver_error& cause) {
        raise("DriverError", cause, cause.call.c_str(), cause.code);
    } catch (const illegal_state& cause) {
        raise("IllegalState", cause);
    } catch (const invalid_argument& cause) {
        raise("InvalidArgument", cause);
    } catch (const error& cause) {
        raise("DormouseError", cause);
    }
}

}  // namespace

void translate_errors() {
    nb::register_exception_translator(translate);
}

}  // namespace dormouse::python
