// The stored corpus once more, and for a while bytes that are made of it, drawn with a fixed seed.
// Who wants to search runs `./dev fuzz`.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fuzz/targets.h"

namespace gdn::test {
namespace {

constexpr std::chrono::seconds kBudget(3);

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
};

std::vector<std::string> CorpusOf(const std::string& target) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(GDN_CORPUS "/" + target)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

class Corpus : public ::testing::TestWithParam<Target> {
 protected:
  size_t Below(size_t n) { return random_() % n; }
  // The beginning of one, the end of another, and some bytes changed.
  std::string Mutant(const std::vector<std::string>& corpus) {
    const std::string& head = corpus[Below(corpus.size())];
    const std::string& tail = corpus[Below(corpus.size())];
    std::string bytes =
        head.substr(0, Below(head.size() + 1)) + tail.substr(Below(tail.size() + 1));
    if (bytes.empty()) return bytes;
    for (size_t i = Below(8); i > 0; --i) bytes[Below(bytes.size())] = static_cast<char>(random_());
    return bytes;
  }

  std::mt19937_64 random_{20260101};
};

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : bytes) hex.append({kDigits[byte >> 4], kDigits[byte & 15]});
  return hex;
}

TEST_P(Corpus, Holds) {
  const std::vector<std::string> corpus = CorpusOf(GetParam().name);
  ASSERT_FALSE(corpus.empty());
  for (const std::string& bytes : corpus) {
    GetParam().run(bytes);
    ASSERT_FALSE(HasFailure()) << Hex(bytes);
  }
}

TEST_P(Corpus, HoldsOfItsMutants) {
  const std::vector<std::string> corpus = CorpusOf(GetParam().name);
  const auto end = std::chrono::steady_clock::now() + kBudget;
  int runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    const std::string bytes = Mutant(corpus);
    GetParam().run(bytes);
    ASSERT_FALSE(HasFailure()) << Hex(bytes);
  }
  RecordProperty("runs", runs);
  EXPECT_GT(runs, 0);
}

INSTANTIATE_TEST_SUITE_P(Targets, Corpus,
                         ::testing::Values(Target{"codec", FuzzCodec}, Target{"calls", FuzzCalls}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace gdn::test
