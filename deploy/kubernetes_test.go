package deploy_test

import (
	"bytes"
	"os"
	"path"
	"regexp"
	"slices"
	"testing"
	"time"

	egv1a1 "github.com/envoyproxy/gateway/api/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// kinds are the kinds of objects that the chart and the manifests may contain.
var kinds = map[string]func() any{
	"v1 ConfigMap":                                       func() any { return new(corev1.ConfigMap) },
	"v1 Service":                                         func() any { return new(corev1.Service) },
	"v1 ServiceAccount":                                  func() any { return new(corev1.ServiceAccount) },
	"apps/v1 Deployment":                                 func() any { return new(appsv1.Deployment) },
	"policy/v1 PodDisruptionBudget":                      func() any { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy":                 func() any { return new(networkingv1.NetworkPolicy) },
	"networking.k8s.io/v1 Ingress":                       func() any { return new(networkingv1.Ingress) },
	"gateway.networking.k8s.io/v1 GatewayClass":          func() any { return new(gwv1.GatewayClass) },
	"gateway.networking.k8s.io/v1 Gateway":               func() any { return new(gwv1.Gateway) },
	"gateway.networking.k8s.io/v1 HTTPRoute":             func() any { return new(gwv1.HTTPRoute) },
	"gateway.envoyproxy.io/v1alpha1 SecurityPolicy":      func() any { return new(egv1a1.SecurityPolicy) },
	"gateway.envoyproxy.io/v1alpha1 ClientTrafficPolicy": func() any { return new(egv1a1.ClientTrafficPolicy) },
}

var separator = regexp.MustCompile(`(?m)^---\s*$`)

// decoded returns the objects in a text of YAML. A field that its kind does not have is an error, and so is one that occurs twice.
func decoded(t *testing.T, path, text string) []any {
	t.Helper()
	var objects []any
	for _, document := range separator.Split(text, -1) {
		data := []byte(document)
		var head metav1.TypeMeta
		if err := yaml.Unmarshal(data, &head); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, document)
		}
		if head.Kind == "" && onlyComments(data) {
			continue
		}
		make, ok := kinds[head.APIVersion+" "+head.Kind]
		if !ok {
			t.Fatalf("%s: unknown kind %s %s", path, head.APIVersion, head.Kind)
		}
		object := make()
		if err := yaml.UnmarshalStrict(data, object); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, document)
		}
		if err := checkSchema(head.APIVersion+" "+head.Kind, data); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, document)
		}
		objects = append(objects, object)
	}
	return objects
}

func onlyComments(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

func TestDecoded(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown field": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {port: 1}\n",
		"a field twice":    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ClusterIP, type: ClusterIP}\n",
	} {
		if err := yaml.UnmarshalStrict([]byte(text), new(corev1.Service)); err == nil {
			t.Errorf("%s was decoded", name)
		}
	}
}

// title returns the version, the kind and the name of an object.
func title(object any) string {
	version, kind := object.(runtime.Object).GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	return version + " " + kind + " " + object.(metav1.Object).GetName()
}

// all returns the objects of a type.
func all[T any](objects []any) (found []T) {
	for _, o := range objects {
		if typed, ok := o.(T); ok {
			found = append(found, typed)
		}
	}
	return found
}

// one returns the only object of a type.
func one[T any](t *testing.T, objects []any) T {
	t.Helper()
	found := all[T](objects)
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T", len(found), *new(T))
	}
	return found[0]
}

// checkObjects checks what the decoder cannot: references between the objects, and what every pod of Valetkey must have.
func checkObjects(t *testing.T, objects []any) {
	t.Helper()
	for _, d := range all[*appsv1.Deployment](objects) {
		if !selects(d.Spec.Selector.MatchLabels, d) {
			t.Errorf("%s: its selector does not match its pods", d.Name)
		}
		for _, c := range d.Spec.Template.Spec.TopologySpreadConstraints {
			for key, value := range c.LabelSelector.MatchLabels {
				if d.Spec.Template.Labels[key] != value {
					t.Errorf("%s: %s: the selector does not match the pods", d.Name, c.TopologyKey)
				}
			}
		}
		restricted(t, d)
		checkPod(t, d.Name, d.Spec.Template.Spec, objects)
	}
	for _, s := range all[*corev1.Service](objects) {
		pod := podOf(t, s.Name, s.Spec.Selector, objects)
		for _, p := range s.Spec.Ports {
			if !hasPort(pod, p.TargetPort) {
				t.Errorf("service %s: no container has the port %s", s.Name, &p.TargetPort)
			}
		}
	}
	for _, p := range all[*policyv1.PodDisruptionBudget](objects) {
		podOf(t, p.Name, p.Spec.Selector.MatchLabels, objects)
	}
	for _, p := range all[*networkingv1.NetworkPolicy](objects) {
		if p.Name == "orders" { // of a service that is not here
			continue
		}
		pod := podOf(t, p.Name, p.Spec.PodSelector.MatchLabels, objects)
		for _, rule := range p.Spec.Ingress {
			if len(rule.From) == 0 || len(rule.Ports) == 0 {
				t.Errorf("network policy %s: a rule allows all peers or all ports", p.Name)
			}
			for _, port := range rule.Ports {
				if !hasPort(pod, *port.Port) {
					t.Errorf("network policy %s: no container has the port %s", p.Name, port.Port)
				}
			}
		}
	}
}

// restricted checks the Pod Security Standard of that name as Kubernetes does.
func restricted(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	if r := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &d.Spec.Template.ObjectMeta, &d.Spec.Template.Spec)); !r.Allowed {
		t.Errorf("%s: %s", d.Name, r.ForbiddenDetail())
	}
}

func selects(selector map[string]string, d *appsv1.Deployment) bool {
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(d.Spec.Template.Labels))
}

// podOf returns the pod that a selector selects.
func podOf(t *testing.T, name string, selector map[string]string, objects []any) corev1.PodSpec {
	t.Helper()
	for _, d := range all[*appsv1.Deployment](objects) {
		if selects(selector, d) {
			return d.Spec.Template.Spec
		}
	}
	t.Errorf("%s selects no pod", name)
	return corev1.PodSpec{}
}

func containers(pod corev1.PodSpec) []corev1.Container {
	return slices.Concat(pod.InitContainers, pod.Containers)
}

func hasPort(pod corev1.PodSpec, port intstr.IntOrString) bool {
	for _, c := range containers(pod) {
		for _, p := range c.Ports {
			if port.StrVal != "" && p.Name == port.StrVal || port.StrVal == "" && p.ContainerPort == port.IntVal {
				return true
			}
		}
	}
	return false
}

func checkPod(t *testing.T, name string, pod corev1.PodSpec, objects []any) {
	t.Helper()
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	if pod.SecurityContext.RunAsUser == nil || !is(pod.AutomountServiceAccountToken, false) {
		t.Errorf("%s: the pod has no number of its user or a token of its service account", name)
	}
	for _, c := range containers(pod) {
		if !is(c.SecurityContext.ReadOnlyRootFilesystem, true) {
			t.Errorf("%s: the container %s can write to its root", name, c.Name)
		}
		if c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: the container %s has no limit of memory", name, c.Name)
		}
		if c.Name == "valetkey" {
			checkContainer(t, name, pod, c, objects)
		}
	}
}

// checkContainer checks the container of Valetkey.
func checkContainer(t *testing.T, name string, pod corev1.PodSpec, c corev1.Container, objects []any) {
	t.Helper()
	for kind, probe := range map[string]*corev1.Probe{"/live": c.LivenessProbe, "/ready": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != kind || !hasPort(corev1.PodSpec{Containers: []corev1.Container{c}}, probe.HTTPGet.Port) {
			t.Errorf("%s: the probe of %s is %+v", name, kind, probe)
		}
	}
	if c.StartupProbe == nil || c.StartupProbe.HTTPGet.Path != "/live" {
		t.Errorf("%s: the startup probe is %+v", name, c.StartupProbe)
	}
	if len(c.Args) != 3 || c.Args[1] != "--config" {
		t.Fatalf("%s: arguments %q", name, c.Args)
	}
	files := mounted(t, pod, c, objects)
	text, ok := files[c.Args[2]]
	if !ok {
		t.Fatalf("%s: the volumes have no file %s", name, c.Args[2])
	}
	file := struct{ Drain, Grace string }{Grace: "10s"}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	var end time.Duration
	for field, text := range map[string]string{"drain": file.Drain, "grace": file.Grace} {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, field, err)
		}
		end += d
	}
	if time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second <= end {
		t.Errorf("%s: the pod is killed after %d seconds, and needs %v", name, *pod.TerminationGracePeriodSeconds, end)
	}
}

// secret is the content of each key of a Secret.
const secret = "0123456789abcdef0123456789abcdef"

// mounted returns the files that the container sees.
func mounted(t *testing.T, pod corev1.PodSpec, c corev1.Container, objects []any) map[string]string {
	t.Helper()
	files := map[string]string{}
	add := func(dir, name, content string) {
		p := path.Join(dir, name)
		if _, twice := files[p]; twice {
			t.Errorf("two volumes have the file %s", p)
		}
		files[p] = content
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 || !m.ReadOnly {
			t.Fatalf("the mount %s has no volume or is not read-only", m.Name)
		}
		v := pod.Volumes[i]
		var sources []corev1.VolumeProjection
		if v.Projected != nil {
			sources = v.Projected.Sources
		} else if v.ConfigMap != nil {
			sources = []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: v.ConfigMap.LocalObjectReference}}}
		}
		for _, s := range sources {
			if s.ConfigMap != nil {
				all := all[*corev1.ConfigMap](objects)
				i := slices.IndexFunc(all, func(c *corev1.ConfigMap) bool { return c.Name == s.ConfigMap.Name })
				if i < 0 {
					t.Fatalf("no ConfigMap %s", s.ConfigMap.Name)
				}
				for name, content := range all[i].Data {
					add(m.MountPath, name, content)
				}
			} else {
				for _, item := range s.Secret.Items {
					add(m.MountPath, item.Path, secret)
				}
			}
		}
	}
	return files
}

// manifest returns the objects of a file in the folder kubernetes.
func manifest(t *testing.T, name string) []any {
	t.Helper()
	text, err := os.ReadFile("kubernetes/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return decoded(t, name, string(text))
}

func TestSidecar(t *testing.T) {
	objects := manifest(t, "sidecar.yaml")
	checkObjects(t, objects)
	d := one[*appsv1.Deployment](t, objects)
	t.Run("starts before the service and ends after it", func(t *testing.T) {
		if c := d.Spec.Template.Spec.InitContainers[0]; c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			t.Errorf("restartPolicy: %v", c.RestartPolicy)
		}
	})
	t.Run("only the port of the proxy is reachable", func(t *testing.T) {
		pod := d.Spec.Template.Spec
		if len(pod.Containers[0].Ports) > 0 {
			t.Error("the service has a port")
		}
		s := one[*corev1.Service](t, objects)
		if got := s.Spec.Ports[0].TargetPort; len(s.Spec.Ports) != 1 || got.IntVal != pod.InitContainers[0].Ports[0].ContainerPort {
			t.Errorf("the Service leads to %s", &got)
		}
	})
}

// envoyGateway returns the objects for Envoy Gateway and those of the release that it needs.
func envoyGateway(t *testing.T) []any {
	t.Helper()
	values, err := os.ReadFile("kubernetes/envoy-gateway.values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(manifest(t, "envoy-gateway.yaml"), releaseNamed(t, "valetkey", "shop", string(values)))
}

func TestEnvoyGateway(t *testing.T) {
	objects := envoyGateway(t)
	checkObjects(t, objects)

	gateway := one[*gwv1.Gateway](t, objects)
	if class := one[*gwv1.GatewayClass](t, objects); string(gateway.Spec.GatewayClassName) != class.Name {
		t.Errorf("the Gateway is of the class %s", gateway.Spec.GatewayClassName)
	}
	if parent := one[*gwv1.HTTPRoute](t, objects).Spec.ParentRefs[0]; string(parent.Name) != gateway.Name {
		t.Errorf("the route belongs to %s", parent.Name)
	}
	t.Run("the policies are those of the Gateway", func(t *testing.T) {
		targets := slices.Concat(one[*egv1a1.SecurityPolicy](t, objects).Spec.TargetRefs, one[*egv1a1.ClientTrafficPolicy](t, objects).Spec.TargetRefs)
		if len(targets) != 2 {
			t.Fatalf("%d targets", len(targets))
		}
		for _, to := range targets {
			if to.Kind != "Gateway" || string(to.Name) != gateway.Name || to.SectionName != nil {
				t.Errorf("the policy is of %+v", to)
			}
		}
	})
	t.Run("the check is the port for gRPC of the chart, and fails closed", func(t *testing.T) {
		auth := one[*egv1a1.SecurityPolicy](t, objects).Spec.ExtAuth
		service := one[*corev1.Service](t, objects)
		to := auth.GRPC.BackendRefs[0]
		if len(service.Spec.Ports) != 1 || string(to.Name) != service.Name || int32(*to.Port) != service.Spec.Ports[0].Port || *service.Spec.Ports[0].AppProtocol != "kubernetes.io/h2c" {
			t.Errorf("asks %s, the service is %+v", to.Name, service.Spec)
		}
		if auth.FailOpen == nil || *auth.FailOpen || *auth.StatusOnError != 503 {
			t.Errorf("on failure: %v, %v", auth.FailOpen, auth.StatusOnError)
		}
	})
	t.Run("all are in one namespace", func(t *testing.T) {
		for _, o := range objects {
			if ns := o.(metav1.Object).GetNamespace(); ns != "shop" && ns != "" {
				t.Errorf("%s is in %s", title(o), ns)
			}
		}
	})
}
