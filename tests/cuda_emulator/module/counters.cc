// The Python module _cuda_counters: the emulator's counters. It is in the same library as _cuda_emulated,
// under a name of its own, because each library has its own copy of the emulator.
#include "cuda_emulator/counters.h"

#include <nanobind/nanobind.h>

namespace nb = nanobind;

namespace {

nb::dict dict_of(const cuda_emulator::GlobalTraffic& traffic) {
  nb::dict dict;
  dict["instructions"] = traffic.instructions;
  dict["bytes"] = traffic.bytes;
  dict["sectors"] = traffic.sectors;
  return dict;
}

nb::dict dict_of(const cuda_emulator::SharedTraffic& traffic) {
  nb::dict dict;
  dict["instructions"] = traffic.instructions;
  dict["bytes"] = traffic.bytes;
  dict["wavefronts"] = traffic.wavefronts;
  dict["least_wavefronts"] = traffic.least_wavefronts;
  dict["excess"] = traffic.excess();
  return dict;
}

nb::dict dict_of(const cuda_emulator::Counters& counters) {
  nb::dict dict;
  dict["launches"] = counters.launches;
  dict["cp_async_global"] = dict_of(counters.cp_async_global);
  dict["load_global"] = dict_of(counters.load_global);
  dict["store_global"] = dict_of(counters.store_global);
  dict["tma_global"] = dict_of(counters.tma_global);
  dict["cp_async_shared"] = dict_of(counters.cp_async_shared);
  dict["ldmatrix"] = dict_of(counters.ldmatrix);
  dict["load_shared"] = dict_of(counters.load_shared);
  dict["store_shared"] = dict_of(counters.store_shared);
  dict["wgmma_shared"] = dict_of(counters.wgmma_shared);
  dict["mma_bf16"] = counters.mma_bf16;
  dict["mma_f16"] = counters.mma_f16;
  dict["mma_tf32"] = counters.mma_tf32;
  dict["mma_f64"] = counters.mma_f64;
  dict["wgmma_bf16"] = counters.wgmma_bf16;
  dict["wgmma_f16"] = counters.wgmma_f16;
  dict["wgmma_tf32"] = counters.wgmma_tf32;
  return dict;
}

}  // namespace

NB_MODULE(_cuda_counters, module) {
  module.def("counters_start", &cuda_emulator::start_counting, "Counts launches from here on, from zero.");
  module.def("counters_stop", &cuda_emulator::stop_counting, "Counts no launch that begins after this.");
  module.def(
      "counters", [] { return dict_of(cuda_emulator::counted()); },
      "The totals of all launches that were counted and have ended.");
}
