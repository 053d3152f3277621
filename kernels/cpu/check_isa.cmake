# Fails where an object compiled for one instruction set holds a symbol that the linker could merge
# with another object's: on an older host the merged copy would be an illegal instruction.
#   cmake -DNM=nm -DOBJECTS=a.o;b.o -P check_isa.cmake
foreach(object ${OBJECTS})
  execute_process(COMMAND ${NM} --defined-only ${object} OUTPUT_VARIABLE symbols
                  COMMAND_ERROR_IS_FATAL ANY)
  if(symbols MATCHES "[^\n]* [WVu] _Z[^\n]*")
    message(FATAL_ERROR "${object} has a symbol that may be merged: ${CMAKE_MATCH_0}")
  endif()
endforeach()
