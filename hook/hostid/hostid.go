// Package hostid gives a host a key of its own, from which its containers' MACs are
// derived. Two hosts with the same network definition must not derive the same MAC: a
// switch that learns one MAC on two ports delivers to one of them at a time.
package hostid

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ID is the key of a host. It is stable over restarts and reboots. It must not leave
// the host: a MAC that is derived from it does not reveal it.
type ID [sha256.Size]byte

// salt separates this key from those that other programs derive from the same machine
// id, as machine-id(5) asks of applications. A change of it changes every derived MAC.
const salt = "lanyard.host-id.1"

// Files are the places where an identity comes from.
type Files struct {
	// Own holds 32 hexadecimal digits, and comes first. An administrator writes it
	// on machines that were cloned together with their machine id.
	Own string
	// Machine is the operating system's machine id (machine-id(5)).
	Machine string
}

// Load returns the host's key: from f.Own, else from f.Machine. Where neither holds an
// identity (a machine id is missing, empty or "uninitialized" in images and early in
// the first boot), Load writes a random one to f.Own. Its error names the file and
// says what to do.
func (f Files) Load() (ID, error) {
	seed, err := f.own()
	if errors.Is(err, fs.ErrNotExist) {
		if seed, err = machineID(f.Machine); err != nil {
			seed, err = f.create()
		}
	}
	if err != nil {
		return ID{}, err
	}
	h := hmac.New(sha256.New, seed)
	h.Write([]byte(salt))
	return ID(h.Sum(nil)), nil
}

func (f Files) own() ([]byte, error) {
	text, err := os.ReadFile(f.Own)
	if err != nil {
		return nil, fmt.Errorf("read host identity: %w", err)
	}
	seed, ok := parse(text)
	if !ok {
		return nil, fmt.Errorf("host identity %s: want 32 hexadecimal digits, not all zero: write such a line, or remove "+
			"the file", f.Own)
	}
	return seed, nil
}

func machineID(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	seed, ok := parse(text)
	if !ok {
		return nil, fmt.Errorf("%s holds no machine id", file)
	}
	return seed, nil
}

// parse reads 32 hexadecimal digits and an optional newline. All zeros are refused:
// images carry them as a placeholder.
func parse(text []byte) (seed []byte, ok bool) {
	text = bytes.TrimSuffix(text, []byte("\n"))
	seed = make([]byte, 16)
	if len(text) != hex.EncodedLen(len(seed)) {
		return nil, false
	}
	if _, err := hex.Decode(seed, text); err != nil {
		return nil, false
	}
	return seed, !bytes.Equal(seed, make([]byte, len(seed)))
}

// create writes a random identity. Of two processes that create it at once, the
// first to link its file decides, and both use that identity.
func (f Files) create() (seed []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("host identity: %s holds no machine id, and %s cannot be written (%w): run "+
				"\"systemd-machine-id-setup\"", f.Machine, f.Own, err)
		}
	}()
	dir := filepath.Dir(f.Own)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	aside, err := os.CreateTemp(dir, "."+filepath.Base(f.Own)+"-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(aside.Name())) }()
	defer aside.Close()
	var random [16]byte
	rand.Read(random[:]) // never fails: crypto/rand ends the process instead
	if _, err := fmt.Fprintln(aside, hex.EncodeToString(random[:])); err != nil {
		return nil, err
	}
	if err := aside.Sync(); err != nil {
		return nil, err
	}
	if err := os.Link(aside.Name(), f.Own); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return f.own()
}
