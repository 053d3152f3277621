#include "server/prometheus/metric_families.h"

#include <algorithm>
#include <set>
#include <string>

#include "prometheus/text_serializer.h"
#include "tests/server/service/service_harness.h"

namespace gdn::test {
namespace {

using prometheus::MetricFamily;
using ::testing::HasSubstr;
using ::testing::Not;

class MetricFamiliesTest : public ServiceHarness {
 protected:
  std::string Text() const {
    return prometheus::TextSerializer().Serialize(
        MetricFamilies(readiness_, {.resident_bytes = 4096, .cpu_seconds = 1.5, .open_files = 9}));
  }
};

TEST_F(MetricFamiliesTest, WhileLoadingNothingIsSaidOfTheModel) {
  EXPECT_THAT(Text(), HasSubstr("\ngdn_serving 0\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("gdn_slots")));
}

TEST_F(MetricFamiliesTest, SlotsAndModelAreThoseHosted) {
  hosted_.info.set_model_fingerprint("f00");
  hosted_.backend = "fake";
  Host();
  EXPECT_TRUE(Decode(ById({"a", "b"}, {1, 2}, true)).ok());
  while (engine_->slots_used() != 2) std::this_thread::yield();  // it follows the answer
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("\ngdn_slots_used 2\n"));
  EXPECT_THAT(text, HasSubstr("\ngdn_queue_steps 0\n"));
  EXPECT_THAT(text, HasSubstr("fingerprint=\"f00\""));
  EXPECT_THAT(text, HasSubstr("backend=\"fake\"} 1\n"));
}

TEST_F(MetricFamiliesTest, DurationsAreSecondsAndBucketsAddUp) {
  Histogram& histogram = readiness_.metrics->steps[0].device;
  histogram.Observe(30'000);
  histogram.Observe(60'000'000'000);
  const std::string text = Text();
  const std::string name = "gdn_batch_device_seconds";
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"prefill\",le=\"2.5e-05\"} 0\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"prefill\",le=\"5e-05\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"prefill\",le=\"25\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(name + "_bucket{kind=\"prefill\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(name + "_sum{kind=\"prefill\"} 60.00003"));
}

TEST_F(MetricFamiliesTest, EveryFamilyIsNamedOnceAndExplained) {
  Host();
  std::set<std::string> names;
  for (const MetricFamily& family : MetricFamilies(readiness_, {})) {
    EXPECT_TRUE(names.insert(family.name).second) << family.name;
    EXPECT_NE(family.help, "") << family.name;
    EXPECT_EQ(family.type == prometheus::MetricType::Counter, family.name.ends_with("_total"))
        << family.name;
  }
}

// Whatever callers send, no new series come of it.
TEST_F(MetricFamiliesTest, LabelsAreBounded) {
  Host();
  const auto series = [this] {
    const std::string text = Text();
    return std::count(text.begin(), text.end(), '\n');
  };
  Raw("/gdn.v1.GdnService/Decode", HostileMessages()[0]);
  EXPECT_TRUE(Decode(ById({"a"}, {1}, true)).ok());
  const auto before = series();
  for (int i = 0; i < 20; ++i) {
    v1::DecodeRequest request = ById({"b" + std::to_string(i % 3)}, {1}, true);
    request.set_layer(i % 2 == 0 ? 3 : 1000 + i);
    Decode(request);
    Raw("/gdn.v1.GdnService/Invented" + std::to_string(i), "");
  }
  EXPECT_EQ(series(), before);
}

}  // namespace
}  // namespace gdn::test
