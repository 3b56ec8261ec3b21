//go:build !failpoint

// Package failpoint marks the steps after which a crash leaves most to clean up. Tests that are
// built with the tag "failpoint" kill the process there. In all other builds, At does nothing.
package failpoint

// At does nothing.
func At(string) {}
