{{- define "culvert.image" -}}
{{- with .Values.hub }}{{ . }}/{{ end }}{{ .Values.image }}:{{ .Values.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "culvert.labels" -}}
app.kubernetes.io/part-of: culvert
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* Folders of a platform, as istio's platform profiles have them. */}}
{{- define "culvert.platforms" -}}
gke: { bin: /home/kubernetes/bin, quotas: true }
k3s: { bin: /var/lib/rancher/k3s/data/cni, conf: /var/lib/rancher/k3s/agent/etc/cni/net.d }
k3d: { bin: /bin, conf: /var/lib/rancher/k3s/agent/etc/cni/net.d }
microk8s: { bin: /var/snap/microk8s/current/opt/cni/bin, conf: /var/snap/microk8s/current/args/cni-network }
minikube: {}
openshift: { bin: /var/lib/cni/bin, conf: /etc/cni/multus/net.d, chained: false, selinux: spc_t }
"": {}
{{- end -}}

{{- define "culvert.platform" -}}
{{- get (include "culvert.platforms" . | fromYaml) .Values.platform | default dict | toYaml -}}
{{- end -}}

{{/* The settings of a DaemonSet that the user added; a name that is set here already is replaced by Kubernetes. */}}
{{- define "culvert.env" -}}
{{- range $name, $value := . }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end -}}

{{/* The control plane that agents talk to unless they are told otherwise. */}}
{{- define "culvert.control" -}}
{{- if .Values.control.enabled }}culvert-control.{{ .Release.Namespace }}.svc:15012{{ else }}istiod.istio-system.svc:15012{{ end }}
{{- end -}}
