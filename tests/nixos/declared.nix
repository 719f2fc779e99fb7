# A machine whose configuration says all: that it begins a cluster, and what
# runs on it. What the project `kept` is only root can read.
{
  one.services.uncloud = {
    labels.zone = "home";
    create.enable = true;
    projects.shop.compose.services.web = {
      image = "app:1";
      environment.VERSION = "declared";
      x-ports = [ "shop.test:8080/http" ];
      x-healthcheck.http = ":8080/healthy";
    };
    projects.kept.file = "/var/lib/secrets/kept.yaml";
  };
  one.systemd.services.uncloud-project-kept.serviceConfig.LoadCredential = [ "web.env:/var/lib/secrets/web.env" ];
}
