// The pool's errors as Python exceptions.
#pragma once

namespace dormouse::python {

// From now on each error of error.hpp arrives in Python as the class of that meaning in dormouse_native.errors.
void translate_errors();

}  // namespace dormouse::python
