// Source rows of a small-group convolution, spread over lanes and padded with zeros, kept as long as result
// rows meet them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common_src/integers.h"
#include "common_src/number.h"
#include "cpu_src/aligned.h"
#include "cpu_src/grouped/plan.h"
#include "cpu_src/microkernels/spread.h"

namespace convgrad::cpu {

// The source channels that each lane of a vector meets, for the vectors of a panel.
template <typename S>
class LaneMaps {
 public:
  explicit LaneMaps(const GroupedPlan& plan) : plan_(plan) {}

  // Prepares the maps for vectors [first, first + count).
  void cover(int64_t first, int64_t count) {
    const ConvProblem& p = plan_.problem;
    const int64_t lanes = plan_.lanes, in = p.group_in(), out = p.group_out();
    index_.resize(count * in * lanes);
    sources_.clear();
    for (int64_t v = 0; v < count; ++v) {
      const int64_t channel = (first + v) * lanes, last = std::min(channel + lanes, p.out_channels) - 1;
      const int64_t source = channel / out * in;
      LaneIndex<S>* index = index_.data() + v * in * lanes;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t of_group = std::min(channel + lane, last) / out * in - source;
        for (int64_t c = 0; c < in; ++c) index[c * lanes + lane] = static_cast<LaneIndex<S>>(of_group + c);
      }
      sources_.push_back({source, last / out * in + in - source, in, in == 1 && out == 1, index});
    }
  }

  const LaneSources<S>* all() const { return sources_.data(); }
  int64_t channels() const { return sources_.back().first + sources_.back().count - sources_.front().first; }

 private:
  const GroupedPlan& plan_;
  std::vector<LaneIndex<S>> index_;
  std::vector<LaneSources<S>> sources_;
};

template <typename T>
class SourceRows {
 public:
  using S = Sum<T>;

  SourceRows(const GroupedPlan& plan, const T* source)
      : plan_(plan), source_(source), spread_(CONVGRAD_FOR_ISA(plan.isa, spread<T>())), maps_(plan) {}

  // From now on rows hold these vectors in this layout.
  void hold(int64_t first_vector, int64_t vectors, const RowLayout& layout) {
    maps_.cover(first_vector, vectors);
    vectors_ = vectors;
    layout_ = layout;
    held_.assign(plan_.buffered_rows(), kNone);
    rows_.resize(plan_.buffered_rows() * row_size());
    zero_padding();
  }

  const RowLayout& layout() const { return layout_; }
  int64_t channels() const { return maps_.channels(); }  // channels that the vectors are made of

  // Returns row i0, i1 of an image, which a result row meets with tap t0. Valid until a row of the same t0 is
  // asked for that is a multiple of the ring away.
  const S* row(int64_t image, int64_t t0, int64_t i0, int64_t i1) {
    const Axis* axis = plan_.problem.axis;
    const int64_t index = (image * axis[0].input + i0) * axis[1].input + i1;
    const int64_t slot = t0 * plan_.ring + i1 % plan_.ring;
    S* buffered = rows_.data() + slot * row_size();
    if (held_[slot] != index) {
      held_[slot] = index;
      fill(source_ + index * axis[2].input * plan_.problem.in_channels, buffered);
    }
    return buffered;
  }

  // Returns where that row is read from; its first columns may lie on the padding.
  const T* at(int64_t image, int64_t i0, int64_t i1) const {
    const Axis* axis = plan_.problem.axis;
    const int64_t index = (image * axis[0].input + i0) * axis[1].input + i1;
    return source_ + (index * axis[2].input + layout_.first) * plan_.problem.in_channels + maps_.all()->first;
  }

 private:
  int64_t row_size() const { return vectors_ * layout_.vector_step; }

  // Columns [first, last) of a residue are on the source, the others are padding.
  struct Inside {
    int64_t first, last;
  };
  Inside inside(int64_t residue) const {
    const int64_t residues = layout_.residues, input = plan_.problem.axis[2].input,
                  at = layout_.first + residue;
    const int64_t first = at >= 0 ? 0 : std::min(divide_up(-at, residues), layout_.columns);
    const int64_t last =
        at >= input ? first : std::clamp(divide_up(input - at, residues), first, layout_.columns);
    return {first, last};
  }

  void fill(const T* source, S* dst) const {
    const int64_t channels = plan_.problem.in_channels;
    for (int64_t residue = 0; residue < layout_.residues; ++residue) {
      const auto [first, last] = inside(residue);
      if (first == last) continue;
      spread_(source + (layout_.first + residue + layout_.residues * first) * channels,
              layout_.residues * channels, last - first, maps_.all(), vectors_,
              dst + residue * layout_.residue_step + first * layout_.column_step, layout_.column_step,
              layout_.vector_step, layout_.copy_step);
    }
  }

  // Writes the padding of all rows, which is in the same columns.
  void zero_padding() {
    for (int64_t residue = 0; residue < layout_.residues; ++residue) {
      const auto [first, last] = inside(residue);
      for (int64_t column = 0; column < layout_.columns; ++column) {
        if (column == first) column = last;
        if (column == layout_.columns) break;
        S* pixel = rows_.data() + residue * layout_.residue_step + column * layout_.column_step;
        for (int64_t v = 0; v < static_cast<int64_t>(held_.size()) * vectors_; ++v) {
          for (int64_t c = 0; c < plan_.copies(); ++c)
            std::fill_n(pixel + v * layout_.vector_step + c * layout_.copy_step, plan_.lanes, S{0});
        }
      }
    }
  }

  const GroupedPlan& plan_;
  const T* source_;
  const Spread<T> spread_;
  LaneMaps<S> maps_;
  RowLayout layout_;
  int64_t vectors_ = 0;
  std::vector<int64_t> held_;  // the source row that each buffered row holds
  AlignedBuffer<S> rows_;
};

}  // namespace convgrad::cpu
