package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/signpost-index/signpost/api/admin"
)

const manifestDir = "deploy/kubernetes"

// manifests are all documents of deploy/kubernetes.
type manifests struct {
	namespaces []*corev1.Namespace
	configs    []*corev1.ConfigMap
	services   []*corev1.Service
	sets       []*appsv1.StatefulSet
	deploys    []*appsv1.Deployment
	budgets    []*policyv1.PodDisruptionBudget
	networks   []*networkingv1.NetworkPolicy
}

// workload is what makes pods.
type workload struct {
	name     string
	selector *metav1.LabelSelector
	pod      *corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
	service  string // that governs a StatefulSet
}

func (m *manifests) workloads() (all []workload) {
	for _, s := range m.sets {
		all = append(all, workload{s.Name, s.Spec.Selector, &s.Spec.Template, s.Spec.VolumeClaimTemplates, s.Spec.ServiceName})
	}
	for _, d := range m.deploys {
		all = append(all, workload{d.Name, d.Spec.Selector, &d.Spec.Template, nil, ""})
	}
	return all
}

func (w workload) container() corev1.Container { return w.pod.Spec.Containers[0] }

// port is the number of a named port.
func (w workload) port(p intstr.IntOrString) (int32, bool) {
	for _, has := range w.container().Ports {
		if p.Type == intstr.String && has.Name == p.StrVal || p.Type == intstr.Int && has.ContainerPort == p.IntVal {
			return has.ContainerPort, true
		}
	}
	return 0, false
}

// selected are the workloads whose pods a selector means; none at all is wrong.
func (m *manifests) selected(t *testing.T, who string, s *metav1.LabelSelector) (found []workload) {
	t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || sel.Empty() {
		t.Errorf("%s: selector %v, %v", who, sel, err)
		return nil
	}
	for _, w := range m.workloads() {
		if sel.Matches(labels.Set(w.pod.Labels)) {
			found = append(found, w)
		}
	}
	if len(found) == 0 {
		t.Errorf("%s: nothing matches %v", who, sel)
	}
	return found
}

func readManifests(t *testing.T) *manifests {
	t.Helper()
	// Strict: a field that the type does not have, or that is there twice, is an error.
	scheme := runtime.NewScheme()
	codecs := serializer.NewCodecFactory(scheme, serializer.EnableStrict)
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), policyv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	m := new(manifests)
	for _, file := range manifestFiles(t) {
		raw, err := os.ReadFile(filepath.Join(manifestDir, file))
		if err != nil {
			t.Fatal(err)
		}
		for docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw))); ; {
			text, err := docs.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			object, _, err := codecs.UniversalDeserializer().Decode(text, nil, nil)
			if err != nil {
				t.Errorf("%s: %v in\n%s", file, err, text)
				continue
			}
			switch o := object.(type) {
			case *corev1.Namespace:
				m.namespaces = append(m.namespaces, o)
			case *corev1.ConfigMap:
				m.configs = append(m.configs, o)
			case *corev1.Service:
				m.services = append(m.services, o)
			case *appsv1.StatefulSet:
				m.sets = append(m.sets, o)
			case *appsv1.Deployment:
				m.deploys = append(m.deploys, o)
			case *policyv1.PodDisruptionBudget:
				m.budgets = append(m.budgets, o)
			case *networkingv1.NetworkPolicy:
				m.networks = append(m.networks, o)
			default:
				t.Errorf("%s: a %T, which no test looks at", file, o)
			}
		}
	}
	return m
}

// manifestFiles are the resources of the kustomization, which has to name all.
func manifestFiles(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(manifestDir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		metav1.TypeMeta
		Namespace string
		Labels    []struct{ Pairs map[string]string }
		Images    []struct{ Name, NewName, NewTag string }
		Resources []string
	}
	if err := yaml.UnmarshalStrict(raw, &k); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(manifestDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "kustomization.yaml" && !slices.Contains(k.Resources, e.Name()) {
			t.Errorf("kustomization.yaml leaves out %s", e.Name())
		}
	}
	return k.Resources
}

// TestManifestsDecodeAndBelongTogether: each document is what the Kubernetes API
// knows, and what names another thing names one that is there.
func TestManifestsDecodeAndBelongTogether(t *testing.T) {
	m := readManifests(t)
	if len(m.sets) != 3 || len(m.deploys) != 1 || len(m.configs) != 1 || len(m.budgets) != 3 || len(m.networks) != 3 {
		t.Errorf("there are %d sets, %d deployments, %d configs, %d budgets, %d network policies", len(m.sets), len(m.deploys), len(m.configs), len(m.budgets), len(m.networks))
	}
	guarded := make(map[string]int)
	for _, b := range m.budgets {
		for _, w := range m.selected(t, "budget "+b.Name, b.Spec.Selector) {
			guarded[w.name]++
		}
	}
	for _, n := range m.networks {
		for _, w := range m.selected(t, "network policy "+n.Name, &n.Spec.PodSelector) {
			guarded[w.name] += 10
			for _, rule := range n.Spec.Ingress {
				for _, p := range rule.Ports {
					if _, ok := w.port(*p.Port); !ok {
						t.Errorf("network policy %s: %s has no port %v", n.Name, w.name, p.Port)
					}
				}
				for _, from := range rule.From {
					m.selected(t, "network policy "+n.Name, from.PodSelector)
				}
			}
		}
	}
	for _, s := range m.services {
		for _, w := range m.selected(t, "service "+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}) {
			for _, p := range s.Spec.Ports {
				if _, ok := w.port(p.TargetPort); !ok {
					t.Errorf("service %s: %s has no port %v", s.Name, w.name, p.TargetPort)
				}
			}
		}
	}
	for _, w := range m.workloads() {
		if guarded[w.name] != 11 {
			t.Errorf("%s has %d budgets and network policies, want one of each", w.name, guarded[w.name])
		}
		m.checkPod(t, w)
	}
}

// checkPod holds a pod against its own parts, and against what every pod of ours is.
func (m *manifests) checkPod(t *testing.T, w workload) {
	t.Helper()
	if own := m.selected(t, w.name, w.selector); len(own) != 1 || own[0].name != w.name {
		t.Errorf("%s selects the pods of %d workloads", w.name, len(own))
	}
	if i := slices.IndexFunc(m.services, func(s *corev1.Service) bool { return s.Name == w.service }); w.service != "" && (i < 0 || m.services[i].Spec.ClusterIP != corev1.ClusterIPNone) {
		t.Errorf("%s: no headless service %q", w.name, w.service)
	}
	pod, c := w.pod.Spec, w.container()
	sc := pod.SecurityContext
	if len(pod.Containers) != 1 || sc == nil || sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot || sc.RunAsUser == nil || *sc.RunAsUser == 0 || sc.FSGroup == nil || sc.SeccompProfile == nil {
		t.Errorf("%s: security context of the pod: %+v", w.name, sc)
	}
	cs := c.SecurityContext
	if cs == nil || cs.AllowPrivilegeEscalation == nil || *cs.AllowPrivilegeEscalation || cs.ReadOnlyRootFilesystem == nil || !*cs.ReadOnlyRootFilesystem || cs.Capabilities == nil || !slices.Contains(cs.Capabilities.Drop, "ALL") {
		t.Errorf("%s: security context of the container: %+v", w.name, cs)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Errorf("%s: variables of services would be taken for settings", w.name)
	}
	if pod.TerminationGracePeriodSeconds == nil || c.ReadinessProbe == nil || c.LivenessProbe == nil || len(c.Command) > 0 || c.Image != "signpost" || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: grace period, probes, command, image or memory", w.name)
	}
	volumes := make(map[string]bool)
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
		if cm := v.ConfigMap; cm != nil && !slices.ContainsFunc(m.configs, func(c *corev1.ConfigMap) bool { return c.Name == cm.Name }) {
			t.Errorf("%s: no config map %s", w.name, cm.Name)
		}
		if s := v.Secret; s != nil && (s.SecretName != "signpost" || s.DefaultMode == nil || *s.DefaultMode&othersMode != 0) {
			t.Errorf("%s: secret %+v", w.name, s)
		}
	}
	for _, v := range w.claims {
		volumes[v.Name] = true
	}
	var mounts []string
	for _, v := range c.VolumeMounts {
		mounts = append(mounts, v.MountPath)
		if !volumes[v.Name] {
			t.Errorf("%s: no volume %s", w.name, v.Name)
		}
	}
	for _, a := range c.Args {
		if _, file, is := strings.Cut(a, "=/"); is && !slices.ContainsFunc(mounts, func(dir string) bool { return strings.HasPrefix("/"+file, dir+"/") }) {
			t.Errorf("%s: %s is in no volume", w.name, a)
		}
	}
}

// parsedFlags are the values that arguments give to the flags of their command.
func parsedFlags(t *testing.T, args []string) map[string]string {
	t.Helper()
	cmd := newApp(io.Discard, io.Discard).Command(args[0])
	if cmd == nil {
		t.Fatalf("no command %q", args[0])
	}
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set.SetOutput(io.Discard)
	for _, f := range cmd.Flags {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(args[1:]); err != nil || set.NArg() > 0 {
		t.Errorf("%q: %v, left %q", args, err, set.Args())
	}
	values := make(map[string]string)
	set.VisitAll(func(f *flag.Flag) { values[f.Name] = f.Value.String() })
	return values
}

// listenFlags are the flags that open the ports of a pod, by the name of the port.
var listenFlags = map[string]map[string]string{
	"indexer":  {"find": flagListenFind, "ingest": flagListenIngest, "admin": flagListenAdmin, "metrics": flagMetrics},
	"assigner": {"announce": flagListen, "p2p": flagListenP2P, "admin": flagListenAdmin, "metrics": flagMetrics},
	"frontend": {"http": flagListen, "metrics": flagMetrics},
}

// TestManifestsSayWhatOurCommandsKnow: flags, the ports they open, whom they ask, and
// that the pool is the pods of the headless service.
func TestManifestsSayWhatOurCommandsKnow(t *testing.T) {
	m := readManifests(t)
	for _, w := range m.workloads() {
		role := w.container().Args[0]
		flags := parsedFlags(t, w.container().Args)
		for name, of := range listenFlags[role] {
			port, ok := w.port(intstr.FromString(name))
			if want := fmt.Sprintf(":%d", port); !ok || flags[of] != want {
				t.Errorf("%s: port %s is %s, --%s is %q", w.name, name, want, of, flags[of])
			}
		}
		if len(w.container().Ports) != len(listenFlags[role]) {
			t.Errorf("%s has ports that no flag opens", w.name)
		}
		for _, of := range []string{flagAssigner, flagStandbyFor} {
			if u := flags[of]; u != "" && !m.serves(u) {
				t.Errorf("%s: --%s %s is no service", w.name, of, u)
			}
		}
	}
	lines, err := admin.ParsePoolLines(strings.NewReader(m.configs[0].Data["pool.txt"]))
	if err != nil || len(lines) != 1 {
		t.Fatal(lines, err)
	}
	at := slices.IndexFunc(m.services, func(s *corev1.Service) bool { return s.Name == lines[0].DNS })
	if at < 0 || m.services[at].Spec.ClusterIP != corev1.ClusterIPNone || !m.services[at].Spec.PublishNotReadyAddresses {
		t.Fatalf("the pool is no headless service that has pods that are not ready too: %s", lines[0])
	}
	for _, w := range m.selected(t, "the pool", &metav1.LabelSelector{MatchLabels: m.services[at].Spec.Selector}) {
		for name, number := range map[string]uint16{"find": lines[0].FindPort, "ingest": lines[0].IngestPort, "admin": lines[0].AdminPort} {
			if p, ok := w.port(intstr.FromString(name)); !ok || p != int32(number) {
				t.Errorf("%s: port %s is %d, in the pool %d", w.name, name, p, number)
			}
		}
		if f := parsedFlags(t, w.container().Args); f[flagAdminToken] != lines[0].TokenFile {
			t.Errorf("%s takes the token %s, the pool has %s", w.name, f[flagAdminToken], lines[0].TokenFile)
		}
	}
}

// serves reports whether a URL is a port of a service.
func (m *manifests) serves(u string) bool {
	return slices.ContainsFunc(m.services, func(s *corev1.Service) bool {
		return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			return u == fmt.Sprintf("http://%s:%d", s.Name, p.Port)
		})
	})
}

// TestProbesAreServed: a daemon that runs answers each probe of its pod; the liveness
// probes of an indexer that knows nobody and an assigner that reaches nobody too.
func TestProbesAreServed(t *testing.T) {
	const any = "127.0.0.1:0"
	dir := t.TempDir()
	ix := startApp(t, "indexer", "--data", filepath.Join(dir, "data"), "--listen-find", any, "--listen-ingest", any, "--listen-admin", any,
		"--listen-p2p", none, "--store-memory", "64MiB", "--ingest-memory", "32MiB")
	pool := filepath.Join(dir, "pool.txt")
	if err := os.WriteFile(pool, []byte("find="+ix.Find+" ingest="+ix.Ingest+" admin="+ix.Admin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	as := startApp(t, "assigner", "--listen", any, "--pool", pool, "--listen-p2p", none, "--listen-admin", none)
	fe := startApp(t, "frontend", "--listen", any, "--pool", pool, "--drain-for", "0s")
	urls := map[string]map[string]string{
		"indexer": {"find": ix.Find, "ingest": ix.Ingest}, "assigner": {"announce": as.HTTP}, "frontend": {"http": fe.HTTP},
	}
	for _, w := range readManifests(t).workloads() {
		c := w.container()
		for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			if p == nil {
				continue
			}
			if p.TCPSocket != nil {
				if _, ok := w.port(p.TCPSocket.Port); !ok {
					t.Errorf("%s: no port %v", w.name, p.TCPSocket.Port)
				}
				continue
			}
			u := urls[c.Args[0]][p.HTTPGet.Port.StrVal]
			if u == "" {
				t.Errorf("%s is probed at port %v", w.name, p.HTTPGet.Port)
				continue
			}
			resp, err := http.Get(u + p.HTTPGet.Path)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s is %s", w.name, p.HTTPGet.Path, resp.Status)
			}
		}
	}
}

// commandVariables are the environment variables of a command.
func commandVariables(role string) (names []string) {
	for _, f := range newApp(io.Discard, io.Discard).Command(role).Flags {
		if d, ok := f.(cli.DocGenerationFlag); ok {
			names = append(names, d.GetEnvVars()...)
		}
	}
	return names
}
