package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"

	"github.com/lanyard-net/lanyard/hook/record"
	"github.com/lanyard-net/lanyard/ipam"
	"github.com/lanyard-net/lanyard/ipam/etcdstore"
	"github.com/lanyard-net/lanyard/testenv"
)

// claimElsewhere claims an address in a pool for a container of another host, which keeps its session
// until the test ends.
func claimElsewhere(w *scriptState, host, name, pool, addr string) error {
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{w.etcd.Endpoint}},
		etcdstore.Host{ID: host, Name: host})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var kept sync.WaitGroup
	kept.Go(func() {
		s.Keep(ctx, slog.New(slog.DiscardHandler), func(context.Context, ipam.Shared) error { return nil })
	})
	w.tb.Cleanup(func() {
		cancel()
		kept.Wait()
		s.Close()
	})
	testenv.Eventually(w.tb, "the session of host "+host, func() error { return s.CheckSession(ctx) })
	network, _, _ := strings.Cut(pool, "/")
	return s.Claim(ctx, pool, ipam.Lease{Addr: netip.MustParseAddr(addr), Name: name,
		Owner: ipam.Owner{Attachment: record.NewID().String(), Network: network, Interface: "eth0"}})
}

// reserveElsewhere reserves a share of a pool for another host.
func reserveElsewhere(w *scriptState, host, pool, ranges string) error {
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{w.etcd.Endpoint}},
		etcdstore.Host{ID: host, Name: host})
	if err != nil {
		return err
	}
	_, err = s.Reserve(context.Background(), pool, []netip.Prefix{netip.MustParsePrefix(ranges)})
	return errors.Join(err, s.Close())
}
