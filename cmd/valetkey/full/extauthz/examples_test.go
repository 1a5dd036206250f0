package extauthz_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	ext_authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/valetkey/valetkey/cmd/valetkey/full/drivers"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
)

const examples = "../../../../examples/gateways"

// loads checks that valetkey authorize accepts a file.
func loads(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authorize.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	a, err := proxy.LoadAuthorizer(path, drivers.All(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	a.Close()
}

// TestEnvoyExample decodes the configuration with the messages of Envoy, strictly, and applies their rules.
func TestEnvoyExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "envoy", "envoy.yaml"))
	require.NoError(t, err)
	decode := func(text string) (*bootstrapv3.Bootstrap, error) {
		var tree any
		if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
			return nil, err
		}
		asJSON, err := json.Marshal(tree)
		if err != nil {
			return nil, err
		}
		b := new(bootstrapv3.Bootstrap)
		if err := protojson.Unmarshal(asJSON, b); err != nil {
			return nil, err
		}
		return b, b.ValidateAll()
	}
	for _, wrong := range []string{"failure_mode_allow", "encode_raw_headers", "path_with_escaped_slashes_action", "envoy_grpc", "grpc_health_check"} {
		_, err := decode(strings.Replace(string(text), wrong+":", wrong+"s:", 1))
		require.Error(t, err, "a field that does not exist")
	}
	b, err := decode(string(text))
	require.NoError(t, err)

	manager := new(hcmv3.HttpConnectionManager)
	require.NoError(t, b.StaticResources.Listeners[0].FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(manager))
	require.NoError(t, manager.ValidateAll())
	assert.True(t, manager.NormalizePath.GetValue())
	assert.True(t, manager.MergeSlashes)
	assert.Equal(t, hcmv3.HttpConnectionManager_REJECT_REQUEST, manager.PathWithEscapedSlashesAction)
	filter := new(ext_authzv3.ExtAuthz)
	require.Len(t, manager.HttpFilters, 2)
	require.NoError(t, manager.HttpFilters[0].GetTypedConfig().UnmarshalTo(filter))
	require.NoError(t, filter.ValidateAll())
	assert.False(t, filter.FailureModeAllow)
	assert.False(t, filter.ClearRouteCache)
	assert.True(t, filter.EncodeRawHeaders)
	assert.Nil(t, filter.AllowedHeaders)
	assert.Nil(t, filter.DisallowedHeaders)
	assert.Nil(t, filter.GetGrpcService().GetRetryPolicy())

	cluster := b.StaticResources.Clusters[1]
	assert.Equal(t, cluster.Name, filter.GetGrpcService().GetEnvoyGrpc().ClusterName)
	options := new(httpv3.HttpProtocolOptions)
	require.NoError(t, cluster.TypedExtensionProtocolOptions["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].UnmarshalTo(options))
	assert.NotNil(t, options.GetExplicitHttpConfig().GetHttp2ProtocolOptions())
	address := cluster.LoadAssignment.Endpoints[0].LbEndpoints[0].GetEndpoint().Address.GetSocketAddress()
	authorize, err := os.ReadFile(filepath.Join(examples, "envoy", "authorize.yaml"))
	require.NoError(t, err)
	assert.Contains(t, string(authorize), fmt.Sprintf("listen_grpc: %s:%d\n", address.Address, address.GetPortValue()))
	loads(t, string(authorize))
}

// TestKubernetesExample loads the file in the ConfigMap, and compares its ports with those that gateways ask.
func TestKubernetesExample(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(examples, "kubernetes", "valetkey.yaml"))
	require.NoError(t, err)
	documents := yaml.NewDecoder(bytes.NewReader(text))
	found := false
	for {
		var object struct {
			Kind string
			Data map[string]string
		}
		err := documents.Decode(&object)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if object.Kind != "ConfigMap" {
			continue
		}
		found = true
		config := object.Data["authorize.yaml"]
		assert.Contains(t, config, "listen_grpc: :9092\n")
		assert.Contains(t, config, "listen_http: :9091\n")
		loads(t, config)
	}
	assert.True(t, found)
}
