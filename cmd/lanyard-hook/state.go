package main

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// maxState is the maximum size of a state, in bytes, as in package hook/oci.
const maxState = 1 << 20

// stateOf reads the state, and reports whether it may have an annotation of Lanyard's. required is true
// only with Docker's device: a state that chooses no network is an error then. What decodes the state
// later would ignore the container.
func stateOf(r io.Reader, required bool) (state []byte, ours bool, err error) {
	if state, err = readState(r); err != nil {
		return nil, false, err
	}
	if required && !choosesNetwork(state) {
		return nil, false, errors.New("the container asks for Lanyard's device, and has no annotation " +
			"io.lanyard.network: add --annotation io.lanyard.network=NETWORK, or leave the device out")
	}
	return state, concerns(state), nil
}

// readState reads the state to its end, also if it is too large: a runtime that still writes when
// its hook exits is killed by SIGPIPE.
func readState(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return nil, errors.New("read state from stdin: " + err.Error())
	}
	if len(b) <= maxState {
		return b, nil
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, errors.New("drain stdin: " + err.Error())
	}
	return nil, errors.New("state on stdin is over " + strconv.Itoa(maxState) +
		" bytes: shorten the container's annotations")
}

// word is in every annotation that the service and lanyard-attach look at, in some case.
const word = "io.lanyard"

// concerns reports whether a state may have an annotation of Lanyard's. It is true for some that
// have none, such as one that mentions Lanyard in a value, and for what is not an object in JSON:
// the service or lanyard-attach decodes the state and decides.
func concerns(state []byte) bool {
	s := bytes.TrimSpace(state)
	object := len(s) > 1 && s[0] == '{' && s[len(s)-1] == '}'
	// JSON can write every character of the word as an escape. No known runtime does for these.
	escaped := bytes.Contains(s, []byte(`\u00`))
	return !object || escaped || bytes.Contains(bytes.ToLower(s), []byte(word))
}

// choosesNetwork reports whether a state has the annotation io.lanyard.network or
// io.lanyard.networks, as a key without escapes. In a value, its quotes would have escapes.
func choosesNetwork(state []byte) bool {
	has := func(key string) bool { return bytes.Contains(state, []byte(key)) }
	return has(`"io.lanyard.network":`) || has(`"io.lanyard.networks":`)
}
