// Steps for an engine under test, and what became of them.
#pragma once

#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/wire/step.h"
#include "tests/testing/fake_backend.h"

namespace gdn::test {

// What a caller got.
struct Outcome {
  int times = 0;  // how often it was answered
  Fault fault;
  StepAnswer answer;

  bool ok() const { return times == 1 && fault.ok(); }
  std::vector<float> output() const {
    std::vector<float> numbers(answer.output.size / sizeof(float));
    if (!numbers.empty()) std::memcpy(numbers.data(), answer.output.data, answer.output.size);
    return numbers;
  }
};

// Memory that holds no zeros by chance.
inline OutputBuffer AllocateOnHeap(size_t bytes) {
  auto memory = std::make_shared<std::vector<std::byte>>(bytes, std::byte{0xee});
  std::byte* data = memory->data();
  return {std::move(memory), data, bytes};
}

// Hidden states whose first number is the one given; the others are 0.
inline std::string Hidden(std::initializer_list<float> tokens) {
  std::string bytes;
  for (const float token : tokens) {
    const float numbers[4] = {token, 0, 0, 0};
    bytes.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
  }
  return bytes;
}

// Hidden states after these were folded into an empty state: the output rows of all of them.
inline std::vector<float> Foretell(const std::string& hidden, FakeState* state) {
  constexpr size_t kTokenBytes = 4 * sizeof(float);
  std::vector<float> rows;
  for (size_t at = 0; at < hidden.size(); at += kTokenBytes) {
    *state = state->Fold(std::string_view(hidden).substr(at, kTokenBytes));
    rows.insert(rows.end(), {state->first(), state->second(), 0, 0});
  }
  return rows;
}

// A step of the hidden layout whose message is `input`, and where its outcome will be.
inline std::pair<std::shared_ptr<Step>, std::shared_ptr<Outcome>> NewStep(StepKind kind,
                                                                          StepRequest request,
                                                                          std::string input) {
  auto message = std::make_shared<std::string>(std::move(input));
  auto outcome = std::make_shared<Outcome>();
  auto step = std::make_shared<Step>();
  step->kind = kind;
  step->request = std::move(request);
  step->request.data_type = v1::DATA_TYPE_FP32;
  if (step->request.input_layout == 0) step->request.input_layout = v1::INPUT_LAYOUT_HIDDEN;
  if (!message->empty()) step->request.input = {*message};
  step->message = message;
  step->allocate = AllocateOnHeap;
  step->done = [outcome](const Fault& fault, StepAnswer answer) {
    ++outcome->times;
    outcome->fault = fault;
    outcome->answer = std::move(answer);
  };
  return {step, outcome};
}

}  // namespace gdn::test
