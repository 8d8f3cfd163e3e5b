import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import org.locationtech.jts.io.ParseException;
import org.locationtech.jts.io.WKTReader;

import qupath.lib.common.ColorTools;
import qupath.lib.io.GsonTools;
import qupath.lib.io.PathIO;
import qupath.lib.io.PathIO.GeoJsonExportOptions;
import qupath.lib.objects.PathObject;
import qupath.lib.objects.PathObjects;
import qupath.lib.objects.classes.PathClass;
import qupath.lib.regions.ImagePlane;
import qupath.lib.roi.GeometryTools;
import qupath.lib.roi.ROIs;

/**
 * QuPath's reader and writer of objects, for with_qupath.py, which compiles this beside QuPath's own source.
 *
 * <p>{@code read FILE...} prints a line of JSON per object of each file; {@code copy FROM TO} writes the objects of a
 * file again; {@code draw FOLDER} writes objects as a person may draw them, in each layout that QuPath exports, and
 * prints them.
 */
public final class QuPathObjects {
    private static final ImagePlane PLANE = ImagePlane.getDefaultPlane();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    public static void main(String[] args) throws IOException, ParseException {
        switch (args[0]) {
            case "read" -> {
                for (int i = 1; i < args.length; i++) print(args[i], PathIO.readObjects(Path.of(args[i])));
            }
            case "copy" -> write(Path.of(args[2]), PathIO.readObjects(Path.of(args[1])));
            case "draw" -> draw(Path.of(args[1]));
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static void draw(Path folder) throws IOException, ParseException {
        var ring = "POLYGON ((400 100, 600 100, 600 300, 400 300, 400 100), (450 150, 450 250, 550 250, 550 150, 450 150))";
        var two = "MULTIPOLYGON (((100 400, 160 400, 160 460, 100 400)), ((200 400, 260 400, 260 460, 200 400)))";
        double[] x = {100.25, 300.5, 310.75, 120}, y = {100.5, 90.25, 280, 300.125};
        var drawn = List.of(
                annotation(ROIs.createPolygonROI(x, y, PLANE), "Tumor"),
                annotation(GeometryTools.geometryToROI(new WKTReader().read(ring), PLANE), "Stroma"),
                annotation(GeometryTools.geometryToROI(new WKTReader().read(two), PLANE), "Tumor: Positive"),
                annotation(ROIs.createRectangleROI(500, 400, 120, 80, PLANE), "Äußerer Rand"),
                annotation(ROIs.createEllipseROI(300, 500, 90, 60, PLANE), "Necrosis"),
                annotation(ROIs.createRectangleROI(110, 110, 40, 40, PLANE), "Ignore*"),
                annotation(ROIs.createRectangleROI(700, 500, 50, 50, PLANE), null),
                annotation(ROIs.createPointsROI(700, 100, PLANE), "Tumor"),
                PathObjects.createDetectionObject(ROIs.createRectangleROI(720, 120, 10, 10, PLANE), PathClass.fromString("Tumor")));
        drawn.get(0).setLocked(true);
        drawn.get(0).setName("drawn by hand");
        drawn.get(0).getMeasurementList().put("Not measured", Double.NaN);
        write(folder.resolve("collection.geojson"), drawn);
        PathIO.exportObjectsAsGeoJSON(folder.resolve("list.geojson"), drawn, GeoJsonExportOptions.PRETTY_JSON);
        PathIO.exportObjectsAsGeoJSON(folder.resolve("packed.geojson.gz"), drawn);
        PathIO.exportObjectsAsGeoJSON(folder.resolve("single.geojson"), drawn.subList(0, 1));
        print("drawn", drawn);
    }

    private static PathObject annotation(qupath.lib.roi.interfaces.ROI roi, String name) {
        return PathObjects.createAnnotationObject(roi, name == null ? null : PathClass.fromString(name));
    }

    private static void write(Path path, List<? extends PathObject> objects) throws IOException {
        PathIO.exportObjectsAsGeoJSON(path, objects, GeoJsonExportOptions.FEATURE_COLLECTION);
    }

    private static void print(String file, List<? extends PathObject> objects) {
        for (var object : objects) {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("file", file);
            row.put("id", object.getID().toString());
            row.put("kind", object.getClass().getSimpleName());
            row.put("name", object.getName());
            var of = object.getPathClass();
            row.put("class", of == null ? null : of.toString());
            var rgb = of == null ? null : of.getColor();
            row.put("colour", rgb == null ? null : new int[] {ColorTools.red(rgb), ColorTools.green(rgb), ColorTools.blue(rgb)});
            row.put("locked", object.isLocked());
            row.put("area", object.getROI().getArea());
            row.put("measurements", object.getMeasurementList().asMap());
            row.put("wkt", object.getROI().getGeometry().toText());
            OUT.println(GsonTools.getInstance().toJson(row));
        }
    }
}
