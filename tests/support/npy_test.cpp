// heed_test: LABELS sanitize
// The readers the conformance runner trusts.
#include "npy.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "golden.hpp"

namespace {

namespace fs = std::filesystem;
using test::array;

class files : public testing::Test {
protected:
    fs::path folder = fs::temp_directory_path() /
                      ("heed_npy_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    void SetUp() override { fs::create_directories(folder); }
    void TearDown() override { fs::remove_all(folder); }

    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(folder / name, std::ios::binary) << text;
        return (folder / name).string();
    }
    template <class T>
    std::string npy(const std::string& name, const std::string& descr, const std::string& shape,
                    const std::vector<T>& data, int version = 1, const char* fortran = "False") const {
        std::string header = "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }\n";
        std::string text = "\x93NUMPY";
        text += static_cast<char>(version);
        text += '\0';
        for (int byte = 0; byte < (version == 1 ? 2 : 4); ++byte) text += static_cast<char>(header.size() >> 8 * byte);
        text += header;
        text.append(reinterpret_cast<const char*>(data.data()), data.size() * sizeof(T));
        return write(name, text);
    }
};

TEST_F(files, types_and_versions) {
    EXPECT_EQ(test::read_npy(npy<float>("a", "<f4", "(3,)", {1, 2.5f, -3})).as<double>(),
              (std::vector<double>{1, 2.5, -3}));
    EXPECT_EQ(test::read_npy(npy<double>("b", "<f8", "(1, 2)", {0.1, 2}, 2)).as<double>(),
              (std::vector<double>{0.1, 2}));
    EXPECT_EQ(test::read_npy(npy<std::int64_t>("c", "<i8", "(2,)", {-1, 1ll << 40}, 3)).as<std::int64_t>(),
              (std::vector<std::int64_t>{-1, 1ll << 40}));
    EXPECT_EQ(test::read_npy(npy<std::int32_t>("d", "<i4", "(1,)", {-7})).as<int>(), std::vector<int>{-7});
    EXPECT_EQ(test::read_npy(npy<std::uint8_t>("e", "|b1", "(2,)", {1, 0})).as<int>(), (std::vector<int>{1, 0}));
    EXPECT_EQ(test::read_npy(npy<std::uint16_t>("f", "<f2", "(2,)", {0x3c00, 0xc000})).as<float>(),
              (std::vector<float>{1, -2}));
    EXPECT_EQ(test::read_npy(npy<std::uint16_t>("g", "<V2", "(1,)", {0x3fc0})).as<float>(), std::vector<float>{1.5f});
    EXPECT_EQ(test::read_npy(npy<std::uint32_t>("h", ">u4", "(1,)", {0x01020304})).as<std::uint32_t>(),
              std::vector<std::uint32_t>{0x04030201});
}

TEST_F(files, shapes) {
    const array scalar = test::read_npy(npy<float>("a", "<f4", "()", {4}));
    EXPECT_EQ(scalar.rank(), 0);
    EXPECT_EQ(scalar.as<float>(), std::vector<float>{4});
    const array empty = test::read_npy(npy<float>("b", "<f4", "(2, 0, 3)", {}));
    EXPECT_EQ(empty.shape, (std::vector<heed::index_t>{2, 0, 3}));
    EXPECT_TRUE(empty.as<float>().empty());
    const array columns = test::read_npy(npy<float>("c", "<f4", "(2, 3)", {1, 4, 2, 5, 3, 6}, 1, "True"));
    EXPECT_EQ(columns.as<int>(), (std::vector<int>{1, 2, 3, 4, 5, 6}));
}

TEST_F(files, broken_ones_are_refused) {
    EXPECT_THROW(test::read_npy((folder / "none").string()), std::runtime_error);
    EXPECT_THROW(test::read_npy(write("a", "not numpy")), std::runtime_error);
    EXPECT_THROW(test::read_npy(npy<float>("b", "<f4", "(3,)", {1, 2})), std::runtime_error);
    EXPECT_THROW(test::read_npy(npy<float>("c", "<f4", "(1,)", {1, 2})), std::runtime_error);
    EXPECT_THROW(test::read_npy(npy<float>("d", "<c8", "(1,)", {1, 2})), std::runtime_error);
}

TEST_F(files, a_case_knows_what_was_not_asked_for) {
    npy<float>("x.npy", "<f4", "(2,)", {1, 2});
    write("case.txt",
          "op Thing\nreference someone somewhere\nattr scale 0.5\nattr mode 2\nin X float32 2 x.npy\n"
          "out Y float32 2 x.npy\n");
    test::golden_case c(folder);
    c.load();
    EXPECT_EQ(c.op(), "Thing");
    EXPECT_EQ(c.real("scale"), 0.5);
    EXPECT_EQ(c.real("absent"), std::nullopt);
    EXPECT_EQ(c.needed("X").as<int>(), (std::vector<int>{1, 2}));
    EXPECT_EQ(c.input("Z"), nullptr);
    EXPECT_THROW(c.needed("Z"), std::runtime_error);
    try {
        c.require_all_read();
        ADD_FAILURE();
    } catch (const std::runtime_error& e) {
        EXPECT_STREQ(e.what(), "Thing does not know: attr mode out Y");
    }
    EXPECT_EQ(c.integer("mode", 0), 2);
    EXPECT_NE(c.output("Y"), nullptr);
    EXPECT_NO_THROW(c.require_all_read());
}

TEST_F(files, a_case_that_cannot_be_read_is_refused) {
    const auto refused = [&](const std::string& text) {
        write("case.txt", text);
        EXPECT_THROW(test::golden_case(folder).load(), std::runtime_error) << text;
    };
    npy<float>("x.npy", "<f4", "(2,)", {1, 2});
    refused("attr a 1\n");
    refused("op A\nop B\n");
    refused("op A\nwhat is this\n");
    refused("op A\nattr a 1\nattr a 2\n");
    refused("op A\nin X float32 3 x.npy\n");
    refused("op A\nin X float64 2 x.npy\n");
    refused("op A\nin X float32 2 y.npy\n");
    write("case.txt", "op A\nattr a 1.5\nattr b one\n");
    test::golden_case c(folder);
    EXPECT_THROW(c.integer("a", 0), std::runtime_error);
    EXPECT_THROW(c.real("b"), std::runtime_error);
}

}  // namespace
