// Splits a convolution with small groups into panels, strips and tasks: a pure function of the problem and
// the instruction set.
//
// The lanes of a vector are neighbouring result channels of several groups, and each lane reads the sources
// of its own group: source channel c of lane l's group, for every c (microkernels/spread.h). Source rows are
// spread in this way into a few buffered rows, with zeros for padding, once for all the taps that meet them.
// Results (for wgrad dy) run along the rows of the innermost axis.
#pragma once

#include <cstdint>
#include <vector>

#include "common_src/major.h"
#include "common_src/problem.h"
#include "cpu_src/isa.h"
#include "cpu_src/regions.h"

namespace convgrad::cpu {

// The layout of a buffered source row, in elements. It holds positions first + residue + residues * i, i <
// columns; those of one residue are neighbours.
struct RowLayout {
  int64_t first = 0, residues = 1, columns = 0;
  int64_t column_step = 0, residue_step = 0, copy_step = 0, vector_step = 0;

  int64_t positions() const { return residues * columns; }
  int64_t offset(int64_t position, int64_t copy) const {
    const int64_t at = position - first;
    return at / residues * column_step + at % residues * residue_step + copy * copy_step;
  }
};

// Results [first, last) of each row.
struct Strip {
  int64_t first, last;
};

// The distances, in elements, from what a row reads and writes to what is read and written next: the next
// row, or the next strip if there is only one row.
struct Ahead {
  bool by_rows;
  int64_t source, result;
  // Returns how many source rows the next row meets that this one does not.
  int64_t rows(const Region& taps) const { return by_rows ? taps.source_step : 1; }
};

// Results result_first + result_step * j, j in [first, last), of one phase in a strip.
struct StripPhase {
  Region phase;
  int64_t first, last;
};

// Result row o0, o1 of an image: the tap rows that it meets, and the source rows to which they lead.
struct ResultRow {
  int64_t image, index;  // image and (n * outputs of axis 0 + o0) * outputs of axis 1 + o1
  Region tap0, tap1;
};

class GroupedPlan {
 public:
  // For dgrad the problem is the transposed one. A task of wgrad sums over one of `parts` of the rows.
  GroupedPlan(const ConvProblem& problem, Major filter_major, Isa isa);

  const Isa isa;
  const Major filter_major;
  const ConvProblem problem;  // pointwise axes merged; the innermost axis has several positions if any has
  const int lanes;
  const ResultPhases phases[kAxes];
  std::vector<int64_t> tap_order[kAxes];  // packed_taps() of each axis
  int64_t vectors;                        // of result channels; the last may be partial
  int64_t panel_vectors, panels;          // vectors whose rows are buffered together
  int64_t strips;                         // parts of a row
  int64_t rows;                           // of all images
  int64_t ring;                           // source rows of one plane that a result row can meet
  bool reads_ahead;                       // the activations exceed the caches

  int64_t copies() const { return problem.group_in(); }
  int64_t terms() const { return problem.taps() * problem.group_in(); }
  int64_t buffered_rows() const { return ring * phases[0].most_met_taps(); }
  Strip strip(int64_t index) const;
  Ahead ahead(const Strip& strip, int64_t rows) const;
  std::vector<StripPhase> phases_of(const Strip& strip) const;
  ResultRow result_row(int64_t index) const;
  // For fprop and dgrad: the results of a phase meet neighbouring columns, copy by copy.
  RowLayout layout_by_phase(const Strip& strip) const;
  // For wgrad: positions in order, with the copies of each together.
  RowLayout layout_by_position(const Strip& strip) const;

  // Returns the filter's flat tap for a place in packed order.
  int64_t filter_tap(int64_t packed_tap) const;

 private:
  void choose_panels();
};

// Reports whether the small-group kernels serve a problem: more than one group, groups no larger than the
// widest vectors, and taps few and close enough that the buffered rows stay in a core's cache. Depends on
// filter and steps alone.
bool grouped_serves(const ConvProblem& problem);

// Returns the number of tasks: one per million multiply-adds, at most 64.
int64_t grouped_tasks(const ConvProblem& problem);

// Reports whether fprop or dgrad can read the filter in place, on every instruction set.
bool grouped_reads_in_place(const ConvProblem& problem, Major filter_major);

// Returns the bytes of the packed filter (0 if it is read in place), which depend on the filter alone.
int64_t grouped_filter_bytes(const ConvProblem& problem, Major filter_major);

// Return the number of parts of the positions for which wgrad keeps partial sums, and their bytes in the
// workspace, which are 0 for one part.
int64_t grouped_wgrad_parts(const ConvProblem& problem);
int64_t grouped_wgrad_bytes(const ConvProblem& problem);

}  // namespace convgrad::cpu
