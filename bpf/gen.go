package bpf

// The objects are compiled for the first and the second BPF instruction set (-mcpu=v1, the default
// of bpf2go, and v2), which every kernel from 5.10 on supports.
//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -output-dir object -go-package object Wire wire.c -- -mcpu=v2 -Wall -Werror -I/usr/include/x86_64-linux-gnu

//go:generate go tool bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -no-global-types -output-dir object -go-package object Guard guard.c -- -Wall -Werror -I/usr/include/x86_64-linux-gnu

// flatten parses the objects in advance, which otherwise every start would do.
//go:generate go run ./flatten
