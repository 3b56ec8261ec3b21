package etcdstore

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
)

// renewed are the client's credentials for connections with TLS. Each connection reads the files of the
// configuration: certificates expire and are replaced by new ones in the same files, and a service that
// keeps the first ones would lose the host's session when it has to connect again.
type renewed struct {
	credentials.TransportCredentials // those of the files as they were at first
	config                           Config
}

// ClientHandshake implements [credentials.TransportCredentials].
func (r renewed) ClientHandshake(
	ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	secret, err := r.config.tls()
	if err != nil {
		return nil, nil, err // the client tries again
	}
	return credentials.NewTLS(secret).ClientHandshake(ctx, authority, conn)
}

// Clone implements [credentials.TransportCredentials].
func (r renewed) Clone() credentials.TransportCredentials {
	return renewed{r.TransportCredentials.Clone(), r.config}
}
