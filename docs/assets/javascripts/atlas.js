// Mark the tab that the page belongs to: generated pages are not in the navigation.
const here = document.querySelector(".crumbs a");
if (here && !document.querySelector(".md-tabs__item--active")) {
  for (const tab of document.querySelectorAll(".md-tabs__link")) {
    if (tab.href.split("#")[0] === here.href.split("#")[0]) tab.parentElement.classList.add("md-tabs__item--active");
  }
}

// The theme leaves its search dialog without a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
