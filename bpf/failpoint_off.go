//go:build !failpoint

package bpf

// failpoint marks a step after which a crash leaves most to clean up. It does nothing, except in
// test binaries built with the tag "failpoint".
func failpoint(string) {}
