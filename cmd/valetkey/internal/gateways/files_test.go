package gateways_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/valetkey/valetkey/cmd/valetkey/internal/driver"
	"github.com/valetkey/valetkey/cmd/valetkey/internal/proxy"
)

// strictly decodes the documents of a file, in which every field must be known.
func strictly[T any](t *testing.T, path string) (all []T) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	for {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err, path)
		all = append(all, v)
	}
}

func TestComposeFiles(t *testing.T) {
	type service struct {
		Image       string
		Command     []string
		Ports       []string
		Volumes     []string
		NetworkMode string   `yaml:"network_mode"`
		WorkingDir  string   `yaml:"working_dir"`
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
	}
	type compose struct{ Services map[string]service }
	files, err := filepath.Glob(filepath.Join(examples, "*", "compose.yaml"))
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			c := strictly[compose](t, file)
			require.Len(t, c, 1)
			services := c[0].Services
			require.Len(t, services, 3)
			assert.Equal(t, []string{"8000:8000"}, services["gateway"].Ports)
			for _, name := range []string{"valetkey", "upstream"} {
				assert.Equal(t, "service:gateway", services[name].NetworkMode, name)
				assert.Empty(t, services[name].Ports, "%s must not be reachable from outside", name)
			}
			assert.Equal(t, []string{"authorize", "--config", "/etc/valetkey/authorize.yaml"}, services["valetkey"].Command)
			for name, s := range services {
				for _, v := range s.Volumes {
					from, _, _ := strings.Cut(v, ":")
					_, err := os.Stat(filepath.Join(filepath.Dir(file), from))
					assert.NoError(t, err, name)
					assert.True(t, strings.HasSuffix(v, ":ro"), v)
				}
			}
			upstream := services["upstream"].Command
			assert.Equal(t, []string{"--port", "9000"}, upstream)
		})
	}
}

func TestTraefikFiles(t *testing.T) {
	type router struct {
		EntryPoints []string `yaml:"entryPoints"`
		Rule        string
		Middlewares []string
		Service     string
	}
	type dynamic struct {
		HTTP struct {
			Middlewares map[string]struct {
				ForwardAuth struct {
					Address             string
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
					MaxResponseBodySize int64    `yaml:"maxResponseBodySize"`
				} `yaml:"forwardAuth"`
			}
			Routers  map[string]router
			Services map[string]struct {
				LoadBalancer struct{ Servers []struct{ URL string } } `yaml:"loadBalancer"`
			}
		}
	}
	type static struct {
		EntryPoints map[string]struct{ Address string } `yaml:"entryPoints"`
		Providers   struct{ File struct{ Filename string } }
	}
	require.Len(t, strictly[static](t, filepath.Join(examples, "traefik", "traefik.yaml")), 1)
	all := strictly[dynamic](t, filepath.Join(examples, "traefik", "dynamic.yaml"))
	require.Len(t, all, 1)
	h := all[0].HTTP
	auth := h.Middlewares["valetkey"].ForwardAuth
	assert.Equal(t, "http://127.0.0.1:9091/", auth.Address)
	assert.Equal(t, []string{"X-Valetkey-Subject", "X-Valetkey-Client", "X-Valetkey-Scope", "Authorization", "DPoP"}, auth.AuthResponseHeaders)
	a, err := proxy.LoadAuthorizer(filepath.Join(examples, "traefik", "authorize.yaml"), driver.Set{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	a.Close()
	for name, r := range h.Routers {
		assert.Contains(t, h.Services, r.Service)
		if r.Service != "valetkey" {
			assert.Equal(t, []string{"valetkey"}, r.Middlewares, "%s is not guarded", name)
		}
	}
}

// The manifests have no field beyond these, which are those of the products' definitions.
func TestKubernetesFiles(t *testing.T) {
	type backend struct {
		Name, Namespace string
		Port            int
	}
	type target struct{ Group, Kind, Name string }
	type object[S any] struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name, Namespace string
			Annotations     map[string]string
		}
		Spec S
	}
	type spec struct { // of all objects but Ingress and HTTPRoute
		// Envoy Gateway
		ExtAuth struct {
			FailOpen      *bool `yaml:"failOpen"`
			StatusOnError int   `yaml:"statusOnError"`
			Timeout       string
			GRPC          struct {
				BackendRefs []backend `yaml:"backendRefs"`
			} `yaml:"grpc"`

			// kgateway
			GRPCService struct {
				BackendRef backend `yaml:"backendRef"`
			} `yaml:"grpcService"`
			ExtensionRef backend `yaml:"extensionRef"`
		} `yaml:"extAuth"`
		TargetRefs []target `yaml:"targetRefs"`
		Path       struct {
			EscapedSlashesAction string `yaml:"escapedSlashesAction"`
		}
		Headers struct {
			WithUnderscoresAction string `yaml:"withUnderscoresAction"`
		}
		Type string

		// Istio
		MeshConfig struct {
			ExtensionProviders []struct {
				Name              string
				EnvoyExtAuthzGrpc struct {
					Service       string
					Port          int
					Timeout       string
					FailOpen      bool   `yaml:"failOpen"`
					StatusOnError string `yaml:"statusOnError"`
				} `yaml:"envoyExtAuthzGrpc"`
			} `yaml:"extensionProviders"`
		} `yaml:"meshConfig"`
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Action   string
		Provider struct{ Name string }

		// Istio, and Gateway API
		Rules []struct {
			Filters []struct {
				Type         string
				ExternalAuth struct {
					Protocol   string
					BackendRef backend `yaml:"backendRef"`
				} `yaml:"externalAuth"`
			}
			BackendRefs []backend `yaml:"backendRefs"`

			// Ingress
			Host string
			HTTP struct {
				Paths []struct {
					Path     string
					PathType string `yaml:"pathType"`
					Backend  struct {
						Service struct {
							Name string
							Port struct{ Number int }
						}
					}
				}
			} `yaml:"http"`
		}
		ParentRefs       []struct{ Name string } `yaml:"parentRefs"`
		Hostnames        []string
		IngressClassName string `yaml:"ingressClassName"`
		TLS              []struct {
			Hosts      []string
			SecretName string `yaml:"secretName"`
		} `yaml:"tls"`

		// Contour
		Protocol   string
		Services   []backend
		Validation struct {
			CASecret    string `yaml:"caSecret"`
			SubjectName string `yaml:"subjectName"`
		}
		VirtualHost struct {
			FQDN string `yaml:"fqdn"`
			TLS  struct {
				SecretName string `yaml:"secretName"`
			} `yaml:"tls"`
			Authorization struct {
				ExtensionRef    backend `yaml:"extensionRef"`
				ResponseTimeout string  `yaml:"responseTimeout"`
				FailOpen        *bool   `yaml:"failOpen"`
			}
		} `yaml:"virtualhost"`
		Routes []struct {
			Conditions []struct{ Prefix string }
			Services   []backend
		}
	}
	found := map[string]object[spec]{}
	for _, file := range []string{"envoy-gateway/policy.yaml", "istio/mesh.yaml", "istio/policy.yaml", "contour/proxy.yaml", "kgateway/policy.yaml", "gateway-api/route.yaml", "ingress-nginx/ingress.yaml"} {
		for _, o := range strictly[object[spec]](t, filepath.Join(examples, file)) {
			found[o.Kind] = o
		}
	}
	asks := backend{Name: "valetkey", Port: 9092}
	closed := func(open *bool) bool { return open != nil && !*open }
	assert.Equal(t, []backend{asks}, found["SecurityPolicy"].Spec.ExtAuth.GRPC.BackendRefs)
	assert.True(t, closed(found["SecurityPolicy"].Spec.ExtAuth.FailOpen))
	provider := found["IstioOperator"].Spec.MeshConfig.ExtensionProviders[0]
	assert.Equal(t, 9092, provider.EnvoyExtAuthzGrpc.Port)
	assert.False(t, provider.EnvoyExtAuthzGrpc.FailOpen)
	assert.Equal(t, provider.Name, found["AuthorizationPolicy"].Spec.Provider.Name)
	assert.Equal(t, "CUSTOM", found["AuthorizationPolicy"].Spec.Action)
	assert.Equal(t, []backend{asks}, found["ExtensionService"].Spec.Services)
	assert.Equal(t, found["ExtensionService"].Metadata.Name, found["HTTPProxy"].Spec.VirtualHost.Authorization.ExtensionRef.Name)
	assert.True(t, closed(found["HTTPProxy"].Spec.VirtualHost.Authorization.FailOpen))
	assert.Equal(t, asks, found["GatewayExtension"].Spec.ExtAuth.GRPCService.BackendRef)
	assert.True(t, closed(found["GatewayExtension"].Spec.ExtAuth.FailOpen))
	assert.Equal(t, found["GatewayExtension"].Metadata.Name, found["TrafficPolicy"].Spec.ExtAuth.ExtensionRef.Name)
	assert.Equal(t, asks, found["HTTPRoute"].Spec.Rules[0].Filters[0].ExternalAuth.BackendRef)
	annotations := found["Ingress"].Metadata.Annotations
	assert.Equal(t, "http://valetkey.shop.svc.cluster.local:9091/", annotations["nginx.ingress.kubernetes.io/auth-url"])
	assert.Equal(t, "X-Valetkey-Subject,X-Valetkey-Client,X-Valetkey-Scope", annotations["nginx.ingress.kubernetes.io/auth-response-headers"])

	entries, err := os.ReadDir(examples)
	require.NoError(t, err)
	var folders []string
	for _, e := range entries {
		folders = append(folders, e.Name())
	}
	slices.Sort(folders)
	assert.Equal(t, []string{"caddy", "contour", "envoy", "envoy-gateway", "gateway-api", "haproxy", "ingress-nginx", "istio", "kgateway", "kubernetes", "nginx", "traefik"}, folders)
}
