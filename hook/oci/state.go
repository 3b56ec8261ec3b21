// Package oci reads the input of an OCI hook: the container's state (OCI runtime spec, runtime.md
// "State") and its annotations, from which it makes a [hook.Request]. It also mounts the
// resolv.conf of a container, for which it needs the same input.
//
// It does not attach: package hook/attach does. All input is hostile, see [Parse].
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxState is the maximum size of a state, in bytes. Most of a state is annotations, and their
// author may be hostile.
const MaxState = 1 << 20

// ReadState reads the container's state from r and decodes it (OCI runtime spec, runtime.md
// "State"). It returns an error if the state is larger than MaxState, is not JSON, or has no id.
// It reads r to its end in any case: a runtime that still writes when its hook exits is killed
// by SIGPIPE.
func ReadState(r io.Reader) (*specs.State, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxState+1))
	if err != nil {
		return nil, fmt.Errorf("read state from stdin: %w", err)
	}
	if len(b) > MaxState {
		if _, err := io.Copy(io.Discard, r); err != nil {
			return nil, fmt.Errorf("drain stdin: %w", err)
		}
		return nil, fmt.Errorf("state on stdin is over %d bytes: shorten the container's annotations", MaxState)
	}
	var s specs.State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("state on stdin is not an OCI state in JSON: %w", err)
	}
	if s.ID == "" {
		return nil, errors.New("state on stdin has no container id")
	}
	return &s, nil
}
