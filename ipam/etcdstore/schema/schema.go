// Package schema publishes the JSON Schema of leases.json, for editors and configuration tools that
// check the file before Lanyard does. A test in package etcdstore compares it with the code.
package schema

import _ "embed"

// Leases is a JSON Schema, draft 2020-12, of an etcdstore.Config.
//
//go:embed leases.schema.json
var Leases []byte
