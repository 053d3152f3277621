// Random messages for the parsers: valid ones, ones of random fields, and what mutation makes of
// them.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace gdn {

class MessageGenerator {
 public:
  explicit MessageGenerator(uint64_t seed) : random_(seed) {}

  // In [0, n), n > 0.
  size_t Below(size_t n) { return random_() % n; }

  // A DecodeRequest (or PrefillRequest: the same fields) and a StreamRequest. Most are valid: made
  // by the generated classes, in parts that merge, with unknown fields between them.
  std::string StepMessage();
  std::string StreamMessage();

  // Flips, cuts, repeats, removes or inserts a few bytes.
  void Mutate(std::string* message);

 private:
  bool Chance(int percent) { return Below(100) < static_cast<size_t>(percent); }
  uint64_t Value();  // of any magnitude
  std::string Text();
  std::string Batch();
  std::string SerializedStep();
  // Fields of random numbers and types, `depth` levels of messages and groups at most.
  std::string RandomFields(int depth);
  std::string RandomField(int depth);

  std::mt19937_64 random_;
};

}  // namespace gdn
