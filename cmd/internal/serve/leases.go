package serve

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/lanyard-net/lanyard/hook/network"
	"github.com/lanyard-net/lanyard/internal/wiring"
	"github.com/lanyard-net/lanyard/ipam"
)

// configPoll is how often keepLeases looks for the configuration of a store that hosts share.
const configPoll = 2 * time.Second

// keepLeases keeps this host's session in the store of leases that hosts share, from the moment at
// which its configuration exists.
func keepLeases(ctx context.Context, l *wiring.Lanyard, o Options) {
	failed := "" // the last error that was logged
	for ctx.Err() == nil {
		store, err := openShared(l, o)
		if err == nil && store != nil {
			store.Keep(ctx, o.Log, func(ctx context.Context, in ipam.Shared) error {
				return l.RenewShared(ctx, network.LeasesEtcd, in)
			})
			return
		}
		if err != nil && err.Error() != failed {
			failed = err.Error()
			o.Log.Error("no session for leases: no container gets an address from etcd", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(configPoll):
		}
	}
}

// openShared returns the store that hosts share, nil if this host has no configuration for it.
func openShared(l *wiring.Lanyard, o Options) (ipam.Shared, error) {
	if _, err := os.Stat(o.Paths.Leases); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return l.Leases.Shared(network.LeasesEtcd)
}
