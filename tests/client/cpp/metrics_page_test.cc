#include "client/cpp/metrics_page.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gdn::client {
namespace {

constexpr const char* kPage = R"(# HELP slots Sequences that fit.
# TYPE slots gauge
slots 64
# TYPE calls counter
calls{method="Decode",code="OK"} 5
calls{method="Decode",code="NOT_FOUND"} 2
calls{method="Prefill",code="OK"} 1e3
# TYPE took histogram
took_bucket{kind="decode",le="0.1"} 10
took_bucket{kind="decode",le="0.2"} 30
took_bucket{kind="decode",le="+Inf"} 30
took_bucket{kind="prefill",le="0.1"} 0
took_bucket{kind="prefill",le="0.2"} 0
took_bucket{kind="prefill",le="+Inf"} 4
not a sample
)";

TEST(MetricsPageTest, SeriesAreSummedByLabels) {
  const MetricsPage page = MetricsPage::Parse(kPage);
  EXPECT_EQ(page.Sum("slots"), 64);
  EXPECT_EQ(page.Sum("calls"), 1007);
  EXPECT_EQ(page.Sum("calls", {{"method", "Decode"}}), 7);
  EXPECT_EQ(page.Sum("calls", {{"method", "Decode"}, {"code", "OK"}}), 5);
  EXPECT_EQ(page.Sum("unknown"), 0);
  EXPECT_EQ(page.Label("calls", "method"), "Decode");
  EXPECT_EQ(page.Label("slots", "method"), "");
}

TEST(MetricsPageTest, AQuantileIsWithinItsBucket) {
  const MetricsPage none;
  const MetricsPage page = MetricsPage::Parse(kPage);
  EXPECT_DOUBLE_EQ(QuantileBetween(none, page, 0.5, "took", {{"kind", "decode"}}), 0.125);
  EXPECT_DOUBLE_EQ(QuantileBetween(none, page, 1, "took", {{"kind", "decode"}}), 0.2);
  EXPECT_DOUBLE_EQ(QuantileBetween(none, page, 0.5, "took", {{"kind", "prefill"}}), 0.2);
}

TEST(MetricsPageTest, AQuantileIsOfWhatCameBetween) {
  const MetricsPage page = MetricsPage::Parse(kPage);
  EXPECT_EQ(QuantileBetween(page, page, 0.5, "took", {{"kind", "decode"}}), 0);
  const MetricsPage later = MetricsPage::Parse(
      "took_bucket{le=\"0.1\",kind=\"decode\"} 10\ntook_bucket{le=\"0.2\",kind=\"decode\"} 32\n"
      "took_bucket{le=\"+Inf\",kind=\"decode\"} 32\n");
  EXPECT_DOUBLE_EQ(QuantileBetween(page, later, 0.5, "took", {{"kind", "decode"}}), 0.15);
}

TEST(MetricsPageTest, NonsenseIsNoPage) {
  EXPECT_EQ(MetricsPage::Parse("{\n}\n{} 1\nx{ 2\nx{a=\" 3\n x{a=b} 4").Sum("y"), 0);
  MetricsPage page;
  std::string why;
  EXPECT_FALSE(FetchMetrics("no port", &page, &why));
  EXPECT_NE(why, "");
}

}  // namespace
}  // namespace gdn::client
