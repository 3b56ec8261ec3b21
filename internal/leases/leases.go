// Package leases opens the store of leases that hosts share, for the programs that link its client.
package leases

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/lanyard-net/lanyard/hook/hostid"
	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
)

// Register makes wiring.Open offer the stores of this package.
func Register() {
	wiring.RegisterLeases(network.LeasesEtcd, func(p wiring.Paths) (ipam.Shared, error) { return OpenEtcd(p) })
}

// OpenEtcd opens the store in the cluster of p.Leases.
func OpenEtcd(p wiring.Paths) (*etcdstore.Store, error) {
	c, err := etcdstore.Load(p.Leases)
	if err != nil {
		return nil, err
	}
	h, err := host(p)
	if err != nil {
		return nil, err
	}
	return etcdstore.Open(c, h)
}

// host returns the identity of this host in the store. Its ID lasts until a boot, as containers do: a
// host that has booted does not hold what it held before, and gets it back only after the time to
// live. Clones of a machine differ in it although they have the same machine id. Machine lasts longer:
// it is derived from what MACs are derived from.
func host(p wiring.Paths) (h etcdstore.Host, err error) {
	id, err := hostid.Files{Own: filepath.Join(p.Run, "leases-host")}.Load()
	if err != nil {
		return h, err
	}
	machine, err := hostid.Files{Own: p.HostID, Machine: "/etc/machine-id"}.Load()
	if err != nil {
		return h, err
	}
	sum := sha256.Sum256(append([]byte("share of leases\x00"), machine[:]...))
	name, err := os.Hostname()
	return etcdstore.Host{ID: hex.EncodeToString(id[:8]), Name: name, Machine: hex.EncodeToString(sum[:8])}, err
}
