#include "server/checkpoint/safetensors.h"

#include <sys/stat.h>

#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"

namespace gdn {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::MakeTensor;
using testing::SafetensorsBytes;
using testing::SafetensorsHead;
using ::testing::StartsWith;
using testing::TempDirectory;
using testing::WriteFile;

std::string Message(const auto& result) { return std::string(result.status().message()); }

std::string SmallFile() {
  return SafetensorsBytes({{"a", MakeTensor("F32", {2, 3}, std::vector<float>(6, 1.5f))},
                           {"b", MakeTensor("BF16", {5}, std::vector<float>(5, 2.0f))}});
}

TEST(ParseSafetensorsHeader, ReadsEveryField) {
  const auto header = ParseSafetensorsHeader(
      R"({"__metadata__": {"format": "pt"},
          "x": {"dtype": "BF16", "shape": [2, 1, 4], "data_offsets": [8, 24]},
          "scalar": {"dtype": "F32", "shape": [], "data_offsets": [4, 8]},
          "none": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]}})",
      100, 124);
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->size(), 3u);
  const SafetensorsEntry& x = header->at("x");
  EXPECT_EQ(x.type, "BF16");
  EXPECT_EQ(x.shape, (std::vector<int64_t>{2, 1, 4}));
  EXPECT_EQ(x.offset, 108u);
  EXPECT_EQ(x.bytes, 16u);
  EXPECT_EQ(header->at("scalar").bytes, 4u);
  EXPECT_EQ(header->at("none").bytes, 0u);
}

TEST(ParseSafetensorsHeader, TakesTypesItDoesNotKnow) {
  const auto header = ParseSafetensorsHeader(
      R"({"x": {"dtype": "F4", "shape": [6], "data_offsets": [0, 3]}})", 0, 3);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->at("x").type, "F4");
}

struct BadHeader {
  const char* name;
  std::string json;  // before 16 bytes of data
  const char* message;
};

class BadHeaderTest : public ::testing::TestWithParam<BadHeader> {};

TEST_P(BadHeaderTest, IsRefusedByName) {
  const auto header = ParseSafetensorsHeader(GetParam().json, 0, 16);
  ASSERT_EQ(header.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Message(header), HasSubstr(GetParam().message));
}

std::string Entry(const char* dtype, const char* shape, const char* offsets) {
  return absl::StrCat(R"({"dtype": )", dtype, R"(, "shape": )", shape, R"(, "data_offsets": )",
                      offsets, "}");
}

std::string Entry(const char* shape, const char* offsets) {
  return Entry(R"("F32")", shape, offsets);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadHeaderTest,
    ::testing::Values(
        BadHeader{"Empty", "", "header: expected a JSON object"},
        BadHeader{"NotJson", "{\"x\": ", "header: expected a JSON object"},
        BadHeader{"NotUtf8", "{\"\xff\": 1}", "header: expected a JSON object"},
        BadHeader{"Array", "[]", "header: expected a JSON object"},
        BadHeader{"Trailing", "{} x", "header: expected a JSON object"},
        BadHeader{"DeepNesting", std::string(1 << 20, '['), "header: expected a JSON object"},
        BadHeader{"DeepValue",
                  "{\"x\": " + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}",
                  "x: expected an object, found an array"},
        BadHeader{"TensorNotObject", R"({"x": 3})", "x: expected an object, found 3"},
        BadHeader{"NoType", R"({"x": {}})", "x: expected a dtype"},
        BadHeader{"TypeNotString", "{\"x\": " + Entry("3", "[1]", "[0, 4]") + "}",
                  "x: expected a dtype"},
        BadHeader{"NoShape", R"({"x": {"dtype": "F32"}})", "x: expected a shape"},
        BadHeader{"NegativeShape", "{\"x\": " + Entry("[-1]", "[0, 4]") + "}",
                  "x: expected a shape"},
        BadHeader{"FractionalShape", "{\"x\": " + Entry("[1.0]", "[0, 4]") + "}",
                  "x: expected a shape"},
        BadHeader{"HugeShape", "{\"x\": " + Entry("[18446744073709551615]", "[0, 4]") + "}",
                  "x: expected a shape"},
        BadHeader{"OverflowingShape",
                  "{\"x\": " + Entry("[4294967296, 4294967296, 0, 4294967296]", "[0, 4]") + "}",
                  "x: expected over 2^64 bytes"},
        BadHeader{"NoOffsets", R"({"x": {"dtype": "F32", "shape": [1]}})",
                  "x: expected two data_offsets"},
        BadHeader{"ThreeOffsets", "{\"x\": " + Entry("[1]", "[0, 4, 8]") + "}",
                  "x: expected two data_offsets"},
        BadHeader{"NegativeOffset", "{\"x\": " + Entry("[1]", "[-4, 0]") + "}",
                  "x: expected two data_offsets"},
        BadHeader{"BackwardOffsets", "{\"x\": " + Entry("[1]", "[4, 0]") + "}",
                  "x: expected data_offsets within the 16 bytes after the header, found [4, 0]"},
        BadHeader{"PastTheEnd", "{\"x\": " + Entry("[1]", "[16, 20]") + "}",
                  "x: expected data_offsets within the 16 bytes after the header, found [16, 20]"},
        BadHeader{"WrongSize", "{\"x\": " + Entry("[3]", "[0, 8]") + "}",
                  "x: expected 12 bytes for F32 [3], found 8"},
        BadHeader{"Twice",
                  "{\"x\": " + Entry("[1]", "[0, 4]") + ", \"x\": " + Entry("[1]", "[4, 8]") + "}",
                  "x: stated twice"},
        BadHeader{"Overlap",
                  "{\"x\": " + Entry("[2]", "[0, 8]") + ", \"y\": " + Entry("[2]", "[4, 12]") + "}",
                  "y: overlaps x"},
        BadHeader{"ControlCharacters", "{\"a\\nb\": 3}", "a\\nb: expected an object"}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsFile, OpensAndReads) {
  TempDirectory dir;
  WriteFile(dir / "x", SmallFile());
  const auto file = SafetensorsFile::Open(dir / "x");
  ASSERT_TRUE(file.ok()) << file.status();
  const SafetensorsEntry& a = file->tensors.at("a");
  std::vector<float> values(6);
  ASSERT_TRUE(file->file.Read(a.offset, std::as_writable_bytes(std::span(values))).ok());
  EXPECT_THAT(values, ::testing::Each(1.5f));
  EXPECT_EQ(file->tensors.at("b").offset + file->tensors.at("b").bytes, file->file.size());
}

TEST(SafetensorsFile, EveryTruncationIsRefused) {
  TempDirectory dir;
  const std::string whole = SmallFile();
  for (size_t size = 0; size < whole.size(); ++size) {
    WriteFile(dir / "x", whole.substr(0, size));
    const auto file = SafetensorsFile::Open(dir / "x");
    ASSERT_EQ(file.status().code(), absl::StatusCode::kFailedPrecondition) << size;
    EXPECT_THAT(Message(file), StartsWith(dir / "x: ")) << size;
  }
}

TEST(SafetensorsFile, RefusesImpossibleHeaderLengths) {
  TempDirectory dir;
  for (const uint64_t length : {uint64_t{9}, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{7}}) {
    std::string bytes = SafetensorsHead("{}      ");
    std::memcpy(bytes.data(), &length, sizeof length);
    WriteFile(dir / "x", bytes);
    EXPECT_THAT(Message(SafetensorsFile::Open(dir / "x")),
                HasSubstr(absl::StrCat("x: expected a header of at most 8 bytes, found ", length)));
  }
}

TEST(SafetensorsFile, RefusesWhatIsNoFile) {
  TempDirectory dir;
  EXPECT_THAT(Message(SafetensorsFile::Open(dir / "absent")),
              AllOf(HasSubstr("/absent: "), HasSubstr("No such file")));
  EXPECT_THAT(Message(SafetensorsFile::Open(dir.path())), HasSubstr("not a regular file"));
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  EXPECT_THAT(Message(SafetensorsFile::Open(dir / "fifo")), HasSubstr("not a regular file"));
}

TEST(File, ReadPastTheEndNamesThePlace) {
  TempDirectory dir;
  WriteFile(dir / "x", "0123456789");
  const auto file = File::Open(dir / "x");
  ASSERT_TRUE(file.ok());
  std::vector<std::byte> bytes(4);
  EXPECT_TRUE(file->Read(6, bytes).ok());
  EXPECT_THAT(std::string(file->Read(7, bytes).message()),
              HasSubstr("x: expected 1 bytes at byte 10, found the end"));
}

// Whatever the header is: an error, or tensors that lie within the file.
void ExpectSafe(const std::string& header, uint64_t end) {
  const uint64_t begin = 8 + header.size();
  const auto parsed = ParseSafetensorsHeader(header, begin, end);
  if (!parsed.ok()) {
    EXPECT_FALSE(parsed.status().message().empty());
    return;
  }
  for (const auto& [name, entry] : *parsed) {
    ASSERT_GE(entry.offset, begin);
    ASSERT_LE(entry.offset, end);
    ASSERT_LE(entry.bytes, end - entry.offset);
  }
}

TEST(ParseSafetensorsHeader, HostileTextNeverCrashes) {
  std::mt19937 random(1);
  const std::string file = SmallFile();
  const std::string header = file.substr(8, file.rfind('}') + 1 - 8);
  const std::string alphabet = "{}[]\",:0123456789-eE.nulltruefas\\u \n";
  for (int round = 0; round < 20000; ++round) {
    std::string flipped = header;
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
      char& c = flipped[random() % flipped.size()];
      c = random() % 2 == 0 ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
    }
    ExpectSafe(flipped, file.size());

    std::string noise(random() % 64, '\0');
    for (char& c : noise) c = alphabet[random() % alphabet.size()];
    ExpectSafe(noise, 8 + noise.size() + random() % 32);
  }
}

TEST(SafetensorsFile, HostileBytesNeverCrash) {
  TempDirectory dir;
  std::mt19937 random(2);
  const std::string whole = SmallFile();
  for (int round = 0; round < 300; ++round) {
    std::string bytes = whole;
    bytes[random() % 8] = static_cast<char>(random());
    bytes[random() % bytes.size()] = static_cast<char>(random());
    WriteFile(dir / "x", bytes);
    const auto file = SafetensorsFile::Open(dir / "x");
    if (file.ok()) continue;
    EXPECT_THAT(Message(file), StartsWith(dir / "x: "));
  }
}

}  // namespace
}  // namespace gdn
