package wiring

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// Paths are the files and directories that Lanyard uses.
type Paths struct {
	Networks string // directory of definitions, one JSON file each, edited by the administrator
	Leases   string // file that says how to reach the store of leases that hosts share
	HostID   string // file with the host's identity, where that is not the machine id
	Run      string // directory of the database and locks; lost at a reboot, as all containers are
	BPF      string // directory of pins, on a bpffs
	Socket   string // the service's socket
	Guards   string // mount point of the network namespace for guarded attachments
}

// Failures returns the directory with the last errors of root's containers.
func (p Paths) Failures() string { return filepath.Join(p.Run, "failures") }

const bpffs = "/sys/fs/bpf"

// DefaultPaths returns the paths of an installed system.
func DefaultPaths() Paths {
	return Paths{
		Networks: "/etc/lanyard/networks.d", Leases: "/etc/lanyard/leases.json", HostID: "/etc/lanyard/host-id",
		Run:    "/run/lanyard",
		BPF:    filepath.Join(bpffs, "lanyard"),
		Socket: "/run/lanyard/lanyard.sock", Guards: "/run/lanyard/guards",
	}
}

// Names returns the directory of the name servers that containers got from DHCP servers.
func (p Paths) Names() string { return filepath.Join(p.Run, "names") }

// PathsUnder returns paths below the directory root, separate from those of an installed
// system and of other roots. Only the pins are elsewhere, because they need a bpffs; the
// name of their directory is a hash of root's path.
func PathsUnder(root string) Paths {
	if abs, err := filepath.Abs(root); err == nil {
		root = abs
	}
	sum := sha256.Sum256([]byte(root))
	return Paths{
		Networks: filepath.Join(root, "networks.d"),
		Leases:   filepath.Join(root, "leases.json"),
		HostID:   filepath.Join(root, "host-id"),
		Run:      filepath.Join(root, "run"),
		BPF:      filepath.Join(bpffs, "lanyard-"+hex.EncodeToString(sum[:6])),
		Socket:   filepath.Join(root, "run", "lanyard.sock"),
		Guards:   filepath.Join(root, "run", "guards"),
	}
}
