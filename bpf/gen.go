package bpf

// The objects are compiled for the first and the second BPF instruction set (-mcpu=v1, the default
// of bpf2go, and v2), which every kernel from 5.10 on supports.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -type mac_key -type endpoint_key -type endpoint -type event_key -type event -type history_row -type clock -type hint -type gateway -type sighting -type address_key -type address -type answer -type vlan -type ends wire wire.c -- -mcpu=v2 -Wall -Werror -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -type guard -type lease_key guard guard.c -- -Wall -Werror -I/usr/include/x86_64-linux-gnu
