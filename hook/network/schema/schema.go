// Package schema publishes the JSON Schema of a network's definition, for editors and
// configuration tools that check files before Lanyard does. A test in package network
// compares it with the code.
package schema

import _ "embed"

// Network is a JSON Schema, draft 2020-12, of a definition as package network reads it, or
// of an array of definitions.
//
//go:embed network.schema.json
var Network []byte
