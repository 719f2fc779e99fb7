package ingress

import (
	"log"
	"net/http"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	// The directives of x-caddy. Those that read files of the machine are left
	// out: file_server, php_fastcgi, templates.
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/gzip"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/zstd"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/intercept"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/requestbody"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy/forwardauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	_ "github.com/caddyserver/caddy/v2/modules/caddytls/standardstek"
)

// moduleName is what the configuration calls this package's modules: the
// source of upstreams, the way to them, the writer of logs, the storage and the
// network.
const moduleName = "uncloud"

func init() {
	caddy.RegisterModule(tableSource{})
	caddy.RegisterModule(watchedTransport{})
	caddy.RegisterModule(logWriter{})
	caddy.RegisterModule(storageModule{})
	// Importing Caddy turns the standard library's logger into one that writes
	// JSON. The agent links Caddy, but not every line of it is Caddy's.
	log.SetOutput(os.Stderr)
	log.SetFlags(log.LstdFlags)
}

var (
	_ reverseproxy.UpstreamSource = tableSource{}
	_ http.RoundTripper           = (*watchedTransport)(nil)
	_ caddy.WriterOpener          = logWriter{}
	_ caddy.StorageConverter      = storageModule{}
)
