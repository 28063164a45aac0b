#include "tests/cpu_kernels/problems.h"

#include <algorithm>

namespace convgrad::test {
namespace {

ConvProblem conv(int64_t batch, int64_t in_channels, int64_t out_channels, int64_t groups,
                 std::vector<Axis> axes) {
  ConvProblem problem;
  problem.batch = batch;
  problem.in_channels = in_channels;
  problem.out_channels = out_channels;
  problem.groups = groups;
  std::copy(axes.begin(), axes.end(), problem.axis + kAxes - axes.size());
  return problem;
}

}  // namespace

Axis axis(int64_t input, int64_t taps, Steps steps) {
  const auto dilated = [](int64_t size, int64_t dilation) {
    return size == 0 ? 0 : (size - 1) * dilation + 1;
  };
  const int64_t span = dilated(input, steps.input_dilation) + steps.pad_lo + steps.pad_hi;
  const int64_t window = dilated(taps, steps.filter_dilation);
  const int64_t output = span < window ? 0 : (span - window) / steps.stride + 1;
  return {input, taps, output, steps.stride, steps.pad_lo, steps.input_dilation, steps.filter_dilation};
}

std::vector<NamedProblem> conv_problems() {
  std::vector<NamedProblem> problems = {
      {"1d", conv(2, 3, 5, 1, {axis(19, 3, {1, 1, 1})})},
      {"1d stride 3", conv(2, 8, 16, 1, {axis(23, 4, {3, 1, 2})})},
      {"1d dilated", conv(1, 16, 12, 1, {axis(30, 5, {1, 8, 0, 1, 2})})},
      {"1d both dilations", conv(2, 3, 17, 1, {axis(7, 4, {2, 3, 2, 3, 2})})},
      {"1d long", conv(1, 2, 3, 1, {axis(700, 5, {1, 2, 2})})},
      {"1x1", conv(3, 33, 18, 1, {axis(5, 1), axis(6, 1)})},
      {"1x1 stride 2", conv(2, 20, 7, 1, {axis(5, 1, {2}), axis(6, 1, {2})})},
      {"2d", conv(2, 16, 32, 1, {axis(7, 3, {1, 1, 1}), axis(9, 3, {1, 1, 1})})},
      {"2d stride 2", conv(2, 5, 24, 1, {axis(9, 3, {2, 0, 1}), axis(8, 3, {2, 1, 1})})},
      {"2d stride past the filter", conv(1, 4, 6, 1, {axis(11, 2, {3}), axis(10, 1, {4})})},
      {"2d asymmetric padding", conv(1, 6, 9, 1, {axis(5, 3, {1, 0, 2}), axis(6, 2, {1, 3, 1})})},
      {"2d padding past the filter", conv(1, 3, 4, 1, {axis(3, 2, {2, 4, 5}), axis(4, 3, {2, 3, 6})})},
      // Blocks of outputs that lie entirely on the padding, or beyond it.
      {"1d padding before", conv(2, 1, 4, 1, {axis(10, 3, {1, 2000, 1})})},
      {"1d padding after", conv(2, 1, 4, 1, {axis(10, 3, {1, 1, 2000})})},
      {"1d padding around", conv(2, 16, 9, 1, {axis(10, 3, {1, 2000, 2000})})},
      {"1d cropped away", conv(2, 2, 4, 1, {axis(10, 3, {1, -50, 90})})},
      {"2d one output on padding", conv(1, 8, 9, 1, {axis(3, 1, {1, 1, 0}), axis(2, 2, {9, 5, 0})})},
      {"2d groups on padding", conv(1, 8, 40, 8, {axis(3, 1), axis(1, 4, {3, 6, -1, 1, 1})})},
      {"2d long filter", conv(1, 8, 8, 1, {axis(300, 300, {1, 150, 150}), axis(1, 1)})},
      {"2d cropped", conv(1, 5, 4, 1, {axis(8, 3, {1, -1, 0}), axis(9, 3, {1, 1, -2})})},
      {"2d filter past the input", conv(2, 4, 5, 1, {axis(3, 5, {1, 2, 2}), axis(2, 4, {1, 2, 2})})},
      {"2d one output", conv(3, 7, 6, 1, {axis(4, 4), axis(5, 5)})},
      {"2d both dilations", conv(1, 5, 7, 1, {axis(5, 3, {2, 3, 2, 3, 2}), axis(4, 2, {3, 1, 4, 2, 3})})},
      {"2d transposed", conv(2, 18, 10, 1, {axis(4, 4, {1, 2, 2, 2}), axis(5, 4, {1, 2, 2, 2})})},
      {"2d three channels in", conv(1, 3, 40, 1, {axis(12, 7, {2, 3, 3}), axis(13, 7, {2, 3, 3})})},
      {"2d three channels out", conv(1, 50, 3, 1, {axis(6, 3, {1, 1, 1}), axis(7, 3, {1, 1, 1})})},
      {"2d one channel", conv(2, 1, 1, 1, {axis(6, 3, {1, 1, 1}), axis(40, 3, {1, 1, 1})})},
      {"2d groups", conv(2, 12, 18, 3, {axis(5, 3, {1, 1, 1}), axis(7, 3, {1, 1, 1})})},
      {"2d many groups", conv(1, 64, 64, 16, {axis(5, 3, {1, 1, 1}), axis(7, 3, {1, 1, 1})})},
      {"2d groups stride", conv(1, 16, 8, 4, {axis(8, 3, {2, 1, 1}), axis(9, 3, {2, 1, 1})})},
      {"2d groups dilated", conv(2, 10, 15, 5, {axis(9, 3, {1, 2, 2, 1, 2}), axis(6, 2, {1, 3, 0, 2, 3})})},
      {"2d wide groups", conv(1, 66, 100, 2, {axis(3, 2), axis(6, 2)})},
      {"depthwise", conv(2, 37, 37, 37, {axis(7, 3, {1, 1, 1}), axis(9, 3, {1, 1, 1})})},
      {"depthwise stride", conv(1, 32, 32, 32, {axis(8, 3, {2, 0, 1}), axis(11, 5, {3, 2, 2})})},
      {"depthwise 7x7", conv(1, 19, 19, 19, {axis(9, 7, {1, 3, 3}), axis(10, 7, {1, 3, 3})})},
      {"depthwise twice", conv(1, 9, 18, 9, {axis(6, 3), axis(7, 3)})},
      {"depthwise 1d dilated", conv(2, 20, 20, 20, {axis(33, 5, {1, 4, 4, 1, 2})})},
      {"depthwise transposed", conv(1, 6, 6, 6, {axis(4, 4, {1, 2, 2, 2}), axis(5, 4, {1, 2, 2, 2})})},
      {"3d", conv(1, 7, 11, 1, {axis(4, 3, {1, 1, 1}), axis(5, 2), axis(6, 3, {1, 1, 1})})},
      {"3d all",
       conv(2, 4, 6, 2,
            {axis(3, 2, {2, 1, 2, 1, 2}), axis(4, 3, {1, 2, 0, 2, 1}), axis(4, 2, {2, 3, 3, 3, 2})})},
      {"3d depthwise", conv(1, 17, 17, 17, {axis(4, 3, {1, 1, 1}), axis(5, 3, {2, 1, 1}), axis(6, 3)})},
      // Steps far larger than the axes they lead along, and filters far larger than the inputs they meet.
      {"1d patches", conv(2, 1, 8, 1, {axis(1000, 100, {100})})},
      {"1d patches padded", conv(2, 3, 20, 1, {axis(1000, 100, {90, 37, 21})})},
      {"1d far strides", conv(1, 2, 33, 1, {axis(2000, 3, {400, 0, 0, 1, 7})})},
      {"1d stride and one tap", conv(2, 3, 2, 1, {axis(200, 1, {8})})},
      {"1d far transposed", conv(2, 40, 1, 1, {axis(7, 200, {1, 0, 0, 50})})},
      {"1d far transposed groups", conv(1, 8, 4, 2, {axis(9, 130, {1, 3, 5, 64, 3})})},
      {"1d far both", conv(1, 3, 6, 1, {axis(30, 40, {45, 100, 300, 60, 7})})},
      {"2d far transposed", conv(1, 6, 5, 1, {axis(3, 20, {1, 2, 2, 20}), axis(4, 12, {1, 1, 1, 6})})},
      {"2d patches", conv(2, 3, 24, 1, {axis(64, 16, {16}), axis(48, 16, {16})})},
      {"1d filter past both ends", conv(1, 5, 7, 1, {axis(3, 500, {40, 300, 300})})},
      {"2d filter past both ends", conv(1, 2, 3, 1, {axis(4, 60, {1, 30, 30}), axis(3, 5, {1, 2, 2})})},
      {"depthwise far strides", conv(2, 9, 9, 9, {axis(900, 3, {150, 1, 0})})},
      {"depthwise far transposed", conv(1, 6, 6, 6, {axis(8, 90, {1, 0, 0, 45})})},
      // Windows of neighbours, with channel counts that share a vector's lanes in each way.
      {"1d long windows", conv(2, 1, 1, 1, {axis(700, 600)})},
      {"1d long windows of two", conv(1, 2, 1, 1, {axis(300, 150, {1, 20, 3})})},
      {"1d long windows of three", conv(1, 3, 1, 1, {axis(300, 100, {7})})},
      {"1d long windows to four", conv(2, 1, 4, 1, {axis(300, 100)})},
      {"1d long windows to three", conv(1, 1, 3, 1, {axis(500, 3)})},
      {"1d long windows of groups of one to two", conv(1, 4, 8, 4, {axis(200, 90, {30})})},
      {"1d two to three", conv(2, 2, 3, 1, {axis(150, 5, {1, 2, 2})})},
      {"2d wide first axis", conv(1, 2, 1, 1, {axis(200, 90), axis(2, 2)})},
      {"1d no tap meets", conv(1, 2, 3, 1, {axis(5, 3, {4, 3, 9, 6, 2})})},
      {"depthwise of three, long", conv(2, 3, 3, 3, {axis(150, 90, {40})})},
      {"depthwise of five, long", conv(1, 5, 5, 5, {axis(90, 60)})},
      {"depthwise of seven, long", conv(1, 7, 7, 7, {axis(90, 60)})},
      // Few channels and a single tap.
      {"1x1 few, padded", conv(2, 3, 5, 1, {axis(4, 1, {1, 1, 0}), axis(300, 1, {1, 7, -9})})},
      {"1x1 few, stride", conv(2, 4, 3, 1, {axis(5, 1, {2, 0, 1}), axis(4, 1, {1, 1, 1, 3}), axis(70, 1)})},
      {"1x1 few, groups", conv(1, 6, 4, 2, {axis(5, 1), axis(70, 1, {1, 1, 1})})},
      {"1x1 few, depthwise", conv(1, 4, 4, 4, {axis(531, 1)})},
      {"few channels, taps", conv(2, 3, 5, 1, {axis(4, 1, {3, 0, 0}), axis(300, 4, {1, 5, 9})})},
      {"few channels, far taps", conv(1, 2, 4, 2, {axis(700, 3, {1, 100, -30, 1, 128})})},
      {"few channels, more padding than input", conv(1, 1, 2, 1, {axis(20, 7, {1, 300, 290, 1, 3})})},
      {"one channel, many taps", conv(1, 1, 1, 1, {axis(900, 200, {1, 99, 100})})},
      {"1x1 few, tasks", conv(2, 2, 3, 1, {axis(40000, 1, {1, 3, 0})})},
      // More than one task, panel, run of terms and partial sum.
      {"tasks", conv(4, 40, 72, 1, {axis(13, 3, {1, 1, 1}), axis(14, 3, {1, 1, 1})})},
      {"tasks of 1x1", conv(2, 600, 130, 1, {axis(6, 1), axis(7, 1)})},
      {"tasks stride 2", conv(6, 16, 96, 1, {axis(20, 3, {2, 1, 1}), axis(22, 3, {2, 1, 1})})},
      {"tasks over rows", conv(8, 3, 8, 1, {axis(60, 3, {1, 1, 1}), axis(64, 3, {1, 1, 1})})},
      {"tasks depthwise", conv(6, 48, 48, 48, {axis(40, 3, {1, 1, 1}), axis(42, 3, {1, 1, 1})})},
      {"tasks groups", conv(3, 64, 64, 8, {axis(24, 3, {1, 1, 1}), axis(25, 3, {1, 1, 1})})},
      {"long sums", conv(1, 4700, 2, 1, {axis(2, 1), axis(3, 2, {1, 1, 0})})},
      // Nothing to read, to write, or to sum over.
      {"no batch", conv(0, 8, 8, 1, {axis(5, 3), axis(5, 3)})},
      {"no input", conv(2, 4, 5, 1, {axis(0, 3, {1, 2, 3}), axis(4, 3)})},
      {"no output", conv(2, 4, 5, 1, {axis(2, 3), axis(4, 3)})},
      {"no input channels", conv(2, 0, 5, 1, {axis(4, 3), axis(4, 3)})},
      {"no output channels", conv(2, 5, 0, 1, {axis(4, 3), axis(4, 3)})},
      {"no space", conv(3, 20, 9, 1, {})},
  };
  // Tails of channels: around the lanes and panels of every instruction set.
  for (const int64_t channels : {1, 2, 4, 7, 8, 15, 16, 17, 31, 33, 48, 63, 65, 129}) {
    problems.push_back({"channels in " + std::to_string(channels),
                        conv(1, channels, 20, 1, {axis(3, 2), axis(9, 3, {1, 1, 1})})});
    problems.push_back({"channels out " + std::to_string(channels),
                        conv(1, 20, channels, 1, {axis(3, 2), axis(9, 3, {1, 1, 1})})});
    problems.push_back({"depthwise channels " + std::to_string(channels),
                        conv(1, channels, channels, channels, {axis(3, 2), axis(9, 3, {1, 1, 1})})});
  }
  for (int64_t channels = 1; channels <= 8; ++channels) {
    problems.push_back({"1x1 few channels " + std::to_string(channels),
                        conv(2, channels, 9 - channels, 1, {axis(3, 1), axis(101, 1)})});
  }
  // Taps at the front and back that only padding meets, and that kernels therefore do not get; for the
  // remaining taps the packed filter has another layout. With a stride and with an input dilation, one each
  // for fprop and dgrad.
  for (const int64_t taps : {22, 33, 70}) {
    for (const int64_t far : {19, 121}) {
      const int64_t front = (taps - 20) / 3, past = taps - 20 - front;
      problems.push_back({"taps on padding, stride " + std::to_string(far) + ", " + std::to_string(taps),
                          conv(1, 3, 8, 1, {axis(taps - front - past, taps, {far, front, past})})});
      problems.push_back({"taps on padding, dilation " + std::to_string(far) + ", " + std::to_string(taps),
                          conv(1, 8, 3, 1, {axis(1, taps, {1, taps - 1 - front, taps - 1 - past, far})})});
    }
  }
  // Tails of pixels: rows as long as every tile, and one more than the longest.
  for (int64_t pixels = 1; pixels <= 30; ++pixels) {
    problems.push_back({"pixels " + std::to_string(pixels), conv(1, 4, 16, 1, {axis(pixels, 3, {1, 1, 1})})});
  }
  return problems;
}

}  // namespace convgrad::test
