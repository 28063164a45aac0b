// Emulates setmaxnreg: a warpgroup returns registers, or takes more. All of its threads must come. The launch
// fails if the warpgroups of a block together ask for more than a multiprocessor has; a GPU would wait
// forever.
#pragma once

namespace cuda_emulator {

void raise_registers(int registers);
void lower_registers(int registers);

}  // namespace cuda_emulator
