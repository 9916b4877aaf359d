// SPDX-License-Identifier: Apache-2.0
#include "metrics/frames/flow.h"

#include <string>

#include "data/error.h"

#ifdef RAINGAUGE_WITH_OPENCV_VIDEO
#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/video/tracking.hpp>
#endif

namespace raingauge {

#ifdef RAINGAUGE_WITH_OPENCV_VIDEO

namespace {

cv::Mat luma_of(const ClipView& clip, int frame) {
  const cv::Mat rgb(clip.height, clip.width, CV_8UC3, const_cast<std::uint8_t*>(clip.frame(frame)));
  cv::Mat luma;
  cv::cvtColor(rgb, luma, cv::COLOR_RGB2GRAY);
  return luma;
}

}  // namespace

std::string_view flow_not_built() { return {}; }

FlowEstimator::FlowEstimator() : threads_before_(cv::getNumThreads()) { cv::setNumThreads(1); }

FlowEstimator::~FlowEstimator() { cv::setNumThreads(threads_before_); }

Flow FlowEstimator::between(const ClipView& clip, int from, int to) const {
  Flow flow{clip.height, clip.width, {}};
  flow.uv.resize(static_cast<std::size_t>(clip.height) * static_cast<std::size_t>(clip.width) * 2);
  cv::Mat target(clip.height, clip.width, CV_32FC2, flow.uv.data());
  try {
    // Its working memory belongs to the object: one a call.
    const auto dis = cv::DISOpticalFlow::create(cv::DISOpticalFlow::PRESET_MEDIUM);
    dis->calc(luma_of(clip, from), luma_of(clip, to), target);
  } catch (const cv::Exception& problem) {
    throw Error("optical flow from frame " + std::to_string(from) + " to " + std::to_string(to) +
                ": OpenCV: " + problem.err);
  }
  return flow;
}

#else

std::string_view flow_not_built() {
  return "not built: needs OpenCV's video module (libopencv-video-dev)";
}

FlowEstimator::FlowEstimator() = default;
FlowEstimator::~FlowEstimator() = default;

Flow FlowEstimator::between(const ClipView&, int, int) const {
  throw Unsupported(std::string("optical flow is ") + std::string(flow_not_built()));
}

#endif

}  // namespace raingauge
