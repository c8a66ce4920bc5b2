#include "drivers/library.hpp"

#include <gtest/gtest.h>

#include "dormouse/error.hpp"

namespace dormouse {
namespace {

TEST(Library, FindsASymbolThatCanBeCalled) {
    const Library library("libm.so.6");
    double (*root)(double) = nullptr;
    library.load(root, "sqrt");
    EXPECT_EQ(root(9.0), 3.0);
}

TEST(Library, AMissingLibraryIsNamedInTheLoadersWords) {
    try {
        const Library library("/nowhere/libcuda.so.1");
        FAIL() << "loaded what is not there";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.call, "dlopen");
        EXPECT_EQ(error.code, Library::not_loaded);
        EXPECT_NE(std::string(error.what()).find("/nowhere/libcuda.so.1"), std::string::npos) << error.what();
    }
}

TEST(Library, AMissingSymbolIsNamedWithItsLibrary) {
    const Library library("libm.so.6");
    void (*function)() = nullptr;
    try {
        library.load(function, "cuMemCreate");
        FAIL() << "found what is not there";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.call, "cuMemCreate");
        EXPECT_EQ(error.code, Library::not_loaded);
        EXPECT_NE(std::string(error.what()).find("libm.so.6 does not have it"), std::string::npos) << error.what();
    }
    EXPECT_EQ(function, nullptr);
}

TEST(Library, AnOptionalSymbolThatIsMissingIsNull) {
    const Library library("libm.so.6");
    void (*missing)() = +[] {};
    library.load_optional(missing, "aclrtHostRegisterV2");
    EXPECT_EQ(missing, nullptr);
    double (*root)(double) = nullptr;
    library.load_optional(root, "sqrt");
    EXPECT_NE(root, nullptr);
}

}  // namespace
}  // namespace dormouse
