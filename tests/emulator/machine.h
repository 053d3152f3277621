// A GPU in software, one thread of the host: kernels' threads are fibers, and which of them goes on
// is drawn at random wherever they meet or wait. What the hardware does by itself (bulk copies,
// products of a warpgroup) is done at random too, at the latest where a thread waits for it. So one
// run is one possible run of the hardware, and the same for the same seed.
//
// It shows wrong results, deadlocks and addresses outside shared memory. It does not show what
// depends on caches and on fences: a write is seen by all at once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/emulator/grid.h"

namespace gdn::emulator {

// ---- for what a thread does

// The thread that runs.
extern Thread* self;

// Does not return before the wait is over.
void WaitFor(const Wait& wait);
// Others go first.
void GiveWay();
// Until the grids before this thread's have ended.
void WaitForGridsBefore();
void LetNextGridBegin();
// Ends the run; RunAll returns why.
[[noreturn]] void Fail(std::string why);

// ---- for what the hardware does

// To be done some time.
void Later(std::function<void()> event);
// Fails the run once the event that does so is over.
void FailLater(std::string why);
bool Chance(unsigned one_in);
uint64_t Draw();

// ---- for the runtime

// False where no device takes such a grid.
bool Enqueue(Grid grid);
// What is enqueued between these is not run, but handed out.
void BeginCapture();
bool IsCapturing();
std::vector<Grid> EndCapture();
// Runs all that was enqueued; "" or what went wrong.
std::string RunAll();
void SetSeed(uint64_t seed);

}  // namespace gdn::emulator
