package wiring

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// Paths are where everything is kept.
type Paths struct {
	Networks string // definitions, one JSON file each; the administrator's
	Run      string // database and locks; gone after a boot, as all containers are
	BPF      string // pins, on a bpffs
	Socket   string // the broker's
	Guards   string // where the namespace for guarded attachments is mounted
}

// Failures is the directory with what went wrong with root's containers.
func (p Paths) Failures() string { return filepath.Join(p.Run, "failures") }

const bpffs = "/sys/fs/bpf"

// DefaultPaths are those of an installed system.
func DefaultPaths() Paths {
	return Paths{
		Networks: "/etc/lanyard/networks.d", Run: "/run/lanyard", BPF: filepath.Join(bpffs, "lanyard"),
		Socket: "/run/lanyard/lanyard.sock", Guards: "/run/lanyard/guards",
	}
}

// PathsUnder keeps everything below one directory, apart from an installed
// system and from every other root. Pins can be nowhere but on a bpffs, where
// the root's path makes the name.
func PathsUnder(root string) Paths {
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	sum := sha256.Sum256([]byte(root))
	return Paths{
		Networks: filepath.Join(root, "networks.d"),
		Run:      filepath.Join(root, "run"),
		BPF:      filepath.Join(bpffs, "lanyard-"+hex.EncodeToString(sum[:6])),
		Socket:   filepath.Join(root, "run", "lanyard.sock"),
		Guards:   filepath.Join(root, "run", "guards"),
	}
}
