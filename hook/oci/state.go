package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxState bounds the state that is read, in bytes. Annotations dominate its
// size, and their author may be hostile.
const MaxState = 1 << 20

// ReadState reads all of r, up to MaxState, and decodes the container's state
// (OCI runtime spec, runtime.md "State"). It always drains r: a runtime that
// is still writing when its hook exits is killed by SIGPIPE.
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
