//go:build !failpoint

package hook

// failpoint marks a step after which a crash leaves resources. It does nothing, except in test
// binaries that are built with the tag "failpoint".
func failpoint(string) {}
