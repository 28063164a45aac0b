# find_package(Python) of the wheels' builds, which packaging/wheels.py puts before CMake's own: the headers are those
# of the Python that the wheel is for, and Python_EXECUTABLE, which runs here, is another one. wheels.py defines
# Python_EXECUTABLE, Python_INCLUDE_DIRS, Python_VERSION and Python_SOABI. A module links no library of Python.
set(Python_FOUND TRUE)
set(Python_INTERPRETER_ID Python)
set(Python_SOSABI abi3)
foreach(component Interpreter Module SABIModule)
  if(NOT TARGET Python::${component})
    add_library(Python::${component} INTERFACE IMPORTED)
  endif()
endforeach()
