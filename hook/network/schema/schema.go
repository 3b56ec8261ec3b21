// Package schema publishes what a network's definition may be, for editors and
// configuration tools that check their files before Lanyard does. A test in package
// network holds it against the code.
package schema

import _ "embed"

// Network is a JSON Schema, draft 2020-12: of a definition as package network
// reads it, or an array of them.
//
//go:embed network.schema.json
var Network []byte
