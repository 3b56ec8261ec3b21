package etcdstore

import (
	"context"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestTemporary checks which errors are worth another attempt. The first was seen from a busy server.
func TestTemporary(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{status.Error(codes.Unknown, "context deadline exceeded"), true},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), true},
		{status.Error(codes.Unavailable, "connection refused"), true},
		{rpctypes.ErrNoLeader, true},
		{rpctypes.ErrCompacted, true},
		{status.Error(codes.Unknown, "disk full"), false},
		{rpctypes.ErrPermissionDenied, false},
		{context.Canceled, false},
	} {
		if got := temporary(c.err); got != c.want {
			t.Errorf("%v: %t, want %t", c.err, got, c.want)
		}
	}
}
