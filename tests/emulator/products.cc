#include "tests/emulator/products.h"

#include <algorithm>

namespace gdn::emulator {
namespace {

Warpgroup& Group() { return self->block->warpgroups[self->number / 128]; }

void Run(Warpgroup& group, uint64_t end) {
  while (group.done < end) {
    const Product& product = group.products.front();
    product.run(*self->block, product);
    group.products.pop_front();
    ++group.done;
  }
}

}  // namespace

Product& NextProduct(void (*run)(Block&, const Product&)) {
  Warpgroup& group = Group();
  const uint64_t at = self->products - group.done;
  if (at >= group.products.size()) group.products.emplace_back().run = run;
  Product& product = group.products[at];
  if (product.run != run) Fail("the threads of a warpgroup ask for different products");
  return product;
}

void Posted() {
  Warpgroup& group = Group();
  Product& product = group.products[self->products - group.done];
  ++self->products;
  if (++product.posted < 128) return;
  ++group.whole;
  if (Chance(2)) Run(group, group.whole);
}

void CommitProducts() { self->product_groups.push_back(self->products); }

void WaitForProducts(int pending) {
  auto& groups = self->product_groups;
  if (static_cast<int>(groups.size()) <= pending) return;
  Warpgroup& group = Group();
  const uint64_t end = groups[groups.size() - 1 - pending];
  while (group.done < end) {
    if (group.whole > group.done) {
      Run(group, std::min(group.whole, end));
    } else {
      WaitFor({&group.whole, ~uint64_t{0}, group.whole, "for the warpgroup"});
    }
  }
  groups.erase(groups.begin(), groups.end() - pending);
}

}  // namespace gdn::emulator
