//go:build !failpoint

package bpf

// failpoint marks a step after which a crash leaves the most behind. It does
// nothing, except in test binaries built with the tag "failpoint".
func failpoint(string) {}
